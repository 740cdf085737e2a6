//! `aerostat up` on a user's mistakes: one line on standard error, exit code 2, and nothing is
//! started.

#[path = "support/elf.rs"]
mod elf;

use std::fs;
use std::path::Path;
use std::process::Command;

use aerostat::host::cgroup::MemoryGroup;

/// Runs `aerostat` in `directory`; returns its exit code and what it wrote to standard error, and
/// checks that it wrote nothing else.
fn refusal(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_aerostat")).args(arguments).current_dir(directory).output();
    let output = output.expect("the command can be run");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).expect("messages are text"))
}

#[test]
fn a_missing_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (code, line) = refusal(directory.path(), &["up", "fleet.toml"]);
    assert_eq!(code, Some(2));
    assert!(line.starts_with("aerostat: fleet.toml: can't read the fleet file") && line.lines().count() == 1, "{line}");
}

#[test]
fn invalid_images_are_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = "pool = \"64M\"\n[[guest]]\nname = \"a\"\nimage = \"a.elf\"\nmin = \"64M\"\nmax = \"64M\"\n";
    fs::write(directory.path().join("fleet.toml"), fleet).unwrap();
    fs::write(directory.path().join("a.elf"), "text").unwrap();
    let (code, line) = refusal(
        directory.path(),
        &["up", "fleet.toml", "--report", "report.json", "--plot", "plot.svg", "--log-dir", "logs"],
    );
    assert_eq!((code, line.as_str()), (Some(2), "aerostat: guest \"a\": the image a.elf is not an ELF file\n"));
    for name in ["report.json", "plot.svg", "logs"] {
        assert!(!directory.path().join(name).exists(), "{name}");
    }
}

/// Runs `aerostat up` with a fleet of guests with these disk lines, in a directory with an image;
/// returns what it prints.
fn refusal_of_disks(directory: &Path, disks: &[&str]) -> String {
    fs::write(directory.join("image"), elf::image(&[0xf4], 0x1000)).expect("a file can be made");
    let guests = disks.iter().enumerate().map(|(number, disk)| {
        format!("[[guest]]\nname = \"g{number}\"\nimage = \"image\"\nmin = \"16M\"\nmax = \"16M\"\n{disk}\n")
    });
    let fleet = format!("pool = \"64M\"\n{}", guests.collect::<String>());
    fs::write(directory.join("fleet.toml"), fleet).expect("a file can be made");
    let (code, line) = refusal(directory, &["up", "fleet.toml", "--report", "report.json"]);
    assert_eq!((code, line.lines().count()), (Some(2), 1), "{line}");
    assert!(!directory.join("report.json").exists());
    line
}

#[test]
fn unusable_disks_are_refused_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty", 0), ("partial", 1000), ("disk", 1024)] {
        fs::write(directory.path().join(name), vec![0; bytes]).unwrap();
    }
    let writes = "disk = \"disk\"\ndisk_mode = \"read-write\"";
    for (disks, expected) in [
        (&["disk = \"nothing\""][..], "guest \"g0\": the disk nothing does not exist; make it or correct the path"),
        (&["", "disk = \".\""], "guest \"g1\": the disk . is not a file; name a disk image"),
        (&["disk = \"empty\""], "guest \"g0\": the disk empty is empty; a disk has at least one sector of 512 bytes"),
        (
            &["disk = \"partial\""],
            "guest \"g0\": the disk partial has 1000 bytes, not a multiple of 512; pad it to whole sectors",
        ),
        (
            &[writes, writes],
            "guest \"g1\": the disk disk is in use by another guest, and one of the two writes to it; give each a copy",
        ),
        (
            &[writes, "disk = \"disk\""],
            "guest \"g1\": the disk disk is in use by another guest, and one of the two writes to it; give each a copy",
        ),
        (
            &["disk_mode = \"read-only\""],
            "fleet.toml: guest \"g0\": disk_mode says how a disk is used and there is no disk; \
             add disk or remove disk_mode",
        ),
    ] {
        assert_eq!(refusal_of_disks(directory.path(), disks), format!("aerostat: {expected}\n"));
    }
}

/// Writes a fleet of one guest that does nothing, with this pool, in its own directory.
fn fleet_with_pool(pool: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory with two files can be made");
    fs::write(directory.path().join("image"), elf::image(&[0xf4], 0x1000))
        .expect("a directory with two files can be made");
    let fleet =
        format!("pool = \"{pool}\"\n[[guest]]\nname = \"g\"\nimage = \"image\"\nmin = \"16M\"\nmax = \"16M\"\n");
    fs::write(directory.path().join("fleet.toml"), fleet).expect("a directory with two files can be made");
    directory
}

#[test]
fn a_pool_that_the_host_does_not_have_is_refused() {
    let directory = fleet_with_pool("1000000G");
    let (code, line) = refusal(directory.path(), &["up", "fleet.toml", "--report", "report.json"]);
    assert_eq!((code, line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.starts_with("aerostat: fleet.toml: a pool of 1024000000.0 MiB and "), "{line}");
    assert!(line.contains(" available; set pool to at most \""), "{line}");
    assert!(!directory.path().join("report.json").exists());
}

/// Runs in its own memory control group, where one can be made.
#[test]
fn a_pool_beyond_the_limit_of_a_control_group_is_refused() {
    const LIMIT_MIB: u64 = 256;
    let Ok(group) = MemoryGroup::create() else { return };
    group.set_limit(LIMIT_MIB << 20).unwrap();
    let directory = fleet_with_pool("256M");
    let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$1\" up fleet.toml";
    let aerostat = env!("CARGO_BIN_EXE_aerostat");
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(group.folder())
        .arg(aerostat)
        .current_dir(directory.path())
        .output();
    let output = output.unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("a pool of 256.0 MiB and ") && line.contains("the limit of the control group "), "{line}");
    let (_, largest) = line.trim_end().rsplit_once("set pool to at most \"").expect(&line);
    let largest: u64 = largest.trim_end_matches("M\"").parse().unwrap();
    assert!((128..LIMIT_MIB).contains(&largest), "{line}");
}

/// Runs `aerostat up` with a valid fleet, from a directory where `sh` has run `script`; returns the
/// line of its refusal.
///
/// The programs are linked or made by another process: a file that this one has open for writing
/// can't be executed, and a child of another test may hold it open for a moment.
fn refusal_with_vmm(script: &str) -> String {
    let fleet = fleet_with_pool("16M");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory can be made");
    let aerostat = directory.path().join("aerostat");
    fs::hard_link(env!("CARGO_BIN_EXE_aerostat"), &aerostat).expect("it is the same file system");
    let made = Command::new("sh").args(["-c", script]).current_dir(directory.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    let output = Command::new(aerostat).args(["up", "fleet.toml"]).current_dir(fleet.path()).output();
    let output = output.expect("the command can be run");
    let line = String::from_utf8(output.stderr).expect("messages are text");
    assert_eq!((output.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    line
}

#[test]
fn a_missing_vmm_is_refused() {
    let line = refusal_with_vmm("true");
    assert!(line.contains("/aerostat-vmm is missing, which runs the guests; build it with `cargo build"), "{line}");
}

#[test]
fn a_vmm_of_another_build_is_refused() {
    let line =
        refusal_with_vmm("printf '#!/bin/sh\\necho 0123456789abcdef\\n' > aerostat-vmm && chmod +x aerostat-vmm");
    assert!(line.contains("/aerostat-vmm is not of this program's build; build both with `cargo build"), "{line}");
}
