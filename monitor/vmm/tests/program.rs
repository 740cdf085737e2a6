//! `aerostat-vmm` when its start goes wrong: by hand, or by a supervisor of another build.

use std::process::{Command, Output, Stdio};

use aerostat_link::message::{FromVmm, Reason};
use aerostat_link::{Link, Patience};
use aerostat_vmm::{ASK_BUILD, BUILD_ID};

/// Runs the program to its end.
fn run(arguments: &[&str], stdin: Stdio) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aerostat-vmm"));
    command.args(arguments).stdin(stdin).output().expect("the program can be run")
}

#[test]
fn the_program_names_its_build() {
    let output = run(&[ASK_BUILD], Stdio::null());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{BUILD_ID}\n"));
    assert!(output.status.success());
}

#[test]
fn a_vmm_without_a_supervisor_does_nothing() {
    for arguments in [&["guest", BUILD_ID][..], &["guest"], &[]] {
        let output = run(arguments, Stdio::null());
        assert!(!output.status.success());
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.contains("this command is for the supervisor only") && line.lines().count() == 1, "{line}");
    }
}

/// The supervisor learns it without having sent anything that the process could read.
#[test]
fn a_supervisor_of_another_build_is_refused() {
    for arguments in [&["guest", "0000000000000000"][..], &["guest"]] {
        let (ours, theirs) = Link::pair().unwrap();
        let output = run(arguments, theirs.into());
        assert!(output.status.success() && output.stderr.is_empty());
        let FromVmm::Ended(ending) = ours.receive_plain(Patience::DoNotWait).unwrap() else { panic!("not an end") };
        let Reason::Failed(why) = ending.reason else { panic!("{ending:?}") };
        assert!(why.contains("of different builds"), "{why}");
    }
}
