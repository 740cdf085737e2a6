//! A fleet whose memory control group is too small for the other processes in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use aerostat::host::cgroup::MemoryGroup;

use crate::elf;

/// Halts for ever.
const IDLE: [u8; 3] = [0xf4, 0xeb, 0xfd];

/// Starts `script` in a group; its arguments are `$1` and so on.
fn start_in(group: &MemoryGroup, script: &str, arguments: &[&str]) -> Child {
    let script = format!("echo $$ > \"$0/cgroup.procs\" && exec {script}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(group.folder()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Other processes fill the group that the fleet fitted into. The kernel kills the guest, not the
/// supervisor, and the supervisor reports that the kernel did it.
#[test]
fn a_guest_that_the_kernel_ends_for_memory() {
    // Where no group can be made there is nothing to test.
    let Ok(group) = MemoryGroup::create() else { return };
    group.set_limit(256 << 20).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("image"), elf::image(&IDLE, 0x1000)).unwrap();
    let guest = "[[guest]]\nname = \"g\"\nimage = \"image\"\nmin = \"16M\"\nmax = \"16M\"\n";
    fs::write(path("fleet.toml"), format!("pool = \"16M\"\n{guest}")).unwrap();
    let aerostat = env!("CARGO_BIN_EXE_aerostat");
    let mut run = start_in(
        &group,
        "\"$1\" up \"$2\" --run-dir \"$3\" --headless --seconds 60",
        &[aerostat, &path("fleet.toml"), &path("run")],
    );
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("g started")));

    // Each has a lower score than a VMM process gets, and together they use more than the limit.
    let hog = || start_in(&group, "dd if=/dev/zero of=/dev/null bs=90M count=100000", &[]);
    let mut hogs = [hog(), hog(), hog(), hog()];
    let text: Vec<String> = lines.collect();
    let status = run.wait().unwrap();
    for hog in &mut hogs {
        // Some were killed by the kernel.
        let _ = hog.kill();
        hog.wait().unwrap();
    }
    assert_eq!(status.code(), Some(1), "{text:#?}");
    let reason =
        "process killed by signal 9, probably by the kernel, because the memory limit of its control group was reached";
    assert!(text.iter().any(|line| line.contains(&format!("g ended: {reason}"))), "{text:#?}");
}
