//! `aerostat up` as a user meets it when something is wrong: one line on standard error, exit code 2, nothing started.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs `aerostat` in `directory`; returns its exit code and what it wrote to standard error, and checks that it wrote nothing else.
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
fn what_is_no_guest_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = "pool = \"64M\"\n[[guest]]\nname = \"a\"\nimage = \"a.elf\"\nmin = \"64M\"\nmax = \"64M\"\n";
    fs::write(directory.path().join("fleet.toml"), fleet).unwrap();
    fs::write(directory.path().join("a.elf"), "text").unwrap();
    let (code, line) = refusal(directory.path(), &["up", "fleet.toml", "--report", "report.json", "--log-dir", "logs"]);
    assert_eq!((code, line.as_str()), (Some(2), "aerostat: guest \"a\": the image a.elf is not an ELF file\n"));
    assert!(!directory.path().join("report.json").exists() && !directory.path().join("logs").exists());
}

#[test]
fn a_vmm_without_a_supervisor_does_nothing() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_aerostat")).arg("vmm").stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("this command is for the supervisor only"));
}
