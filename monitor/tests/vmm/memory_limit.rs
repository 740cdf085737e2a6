//! Memory control groups that are too small: one of a fleet, which other processes fill, and that
//! of a single guest.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aerostat::host::EndReason;
use aerostat::host::GuestHandle;
use aerostat::host::cgroup::{MemoryGroup, PoolGroup};
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat_abi::units::FrameCount;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, end};
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

/// A process that takes more than its guest's part of the pool is killed by the kernel. Another
/// guest of the pool runs on.
#[test]
fn a_vmm_process_that_takes_more_than_its_part() {
    let pool = match PoolGroup::create() {
        Ok(pool) => Some(pool),
        Err(error) => return eprintln!("SKIPPED: no control group can be made ({error})"),
    };
    let bench = Bench::new(&IDLE);
    let honest = GuestConfig { pool: pool.clone(), ..bench.config.clone() };
    let mut honest = VmmGuest::spawn(&honest).unwrap();
    // The text has 512 MiB in the end, and the guest may have 128.
    let doubled = "x=0123456789abcdef; i=0; while [ $i -lt 25 ]; do x=$x$x; i=$((i+1)); done; sleep 1000";
    let hostile = GuestConfig { pool, program: bench.program_of(doubled), ..bench.config.clone() };
    let mut hostile = VmmGuest::spawn(&hostile).unwrap();
    let group = hostile.group().unwrap().clone();
    let reason = end(&mut hostile).reason;
    assert!(matches!(reason, EndReason::KilledForMemory(why) if why.contains("control group")), "{reason}");
    drop(hostile);
    assert!(!group.folder.exists(), "its group is removed");
    assert_eq!(honest.next_event(), None);
    assert!(honest.group().unwrap().folder.join("cgroup.procs").exists());
}

/// Memory of a process that does not run goes to the host's swap. Where the host has none, there is
/// no such way.
#[test]
fn a_stopped_process_is_squeezed_where_the_host_has_swap() {
    const EXCESS: FrameCount = FrameCount::from_mib(128);
    let bench = Bench::new(&IDLE);
    let takes_memory = "x=0123456789abcdef; i=0; while [ $i -lt 24 ]; do x=$x$x; i=$((i+1)); done; sleep 1000";
    let config = GuestConfig { program: bench.program_of(takes_memory), ..bench.config.clone() };
    let mut guest = VmmGuest::spawn(&config).unwrap();
    wait_until(|| guest.measure_resident().unwrap() > EXCESS.saturating_add(EXCESS));
    let process = Pid::from_raw(i32::try_from(guest.pid()).unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    wait_until(|| fs::read_to_string(format!("/proc/{}/stat", guest.pid())).unwrap().contains(") T "));
    let before = guest.measure_resident().unwrap();
    assert!(before > EXCESS);
    let has_swap = fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1;
    assert_eq!(guest.squeeze(EXCESS), has_swap);
    if has_swap {
        wait_until(|| guest.measure_resident().unwrap() <= before.saturating_sub(EXCESS));
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}
