//! The commands that talk to a running fleet, where none runs or none answers: one line on standard
//! error, and exit code 2.

use std::fs::{self, DirBuilder};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use aerostat::host::run_directory::{FleetName, RunDirectory};
use tempfile::TempDir;

/// Every command that needs a fleet.
const COMMANDS: [&str; 16] = [
    "ps",
    "top",
    "stats",
    "stats web --json",
    "explain web",
    "inspect web",
    "events --follow",
    "logs web -f",
    "start web",
    "stop web",
    "kill web",
    "restart web",
    "set web --shares high",
    "target web auto",
    "pool 1G",
    "down",
];

/// Runs `aerostat` with fleets below `directory`; returns its exit code, and what it wrote to
/// standard error.
fn refusal(directory: &Path, command: &str) -> (Option<i32>, String) {
    let mut aerostat = Command::new(env!("CARGO_BIN_EXE_aerostat"));
    aerostat.args(command.split(' ')).arg("--run-dir").arg(directory);
    let output = aerostat.output().expect("the command can be run");
    assert!(output.stdout.is_empty(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
    let line = String::from_utf8(output.stderr).expect("messages are text");
    assert_eq!(line.lines().count(), 1, "{command}: {line}");
    (output.status.code(), line)
}

/// Returns a base directory, and the run directories of fleets in it, as their supervisors hold
/// them.
fn held(names: &[&str]) -> (TempDir, Vec<RunDirectory>) {
    let base = tempfile::tempdir().expect("a directory can be made");
    let own = base.path().join("run");
    DirBuilder::new().mode(0o700).create(&own).expect("a directory can be made");
    let open =
        |name: &&str| RunDirectory::open(Some(&own), &FleetName::new(*name).expect("a name")).expect("it is free");
    let fleets = names.iter().map(open).collect();
    (base, fleets)
}

#[test]
fn without_a_fleet_every_command_says_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let expected = "aerostat: no fleet runs; start one with `aerostat up FLEET.toml --detach`\n";
        assert_eq!(refusal(&directory.path().join("none"), command), (Some(2), expected.into()), "{command}");
    }
}

#[test]
fn of_several_fleets_one_has_to_be_chosen() {
    let (base, _fleets) = held(&["demo", "web"]);
    let place = base.path().join("run");
    let expected = "aerostat: several fleets run: demo, web; choose one with --fleet NAME\n";
    assert_eq!(refusal(&place, "ps"), (Some(2), expected.into()));
    let expected = "aerostat: fleet other does not run; these run: demo, web\n";
    assert_eq!(refusal(&place, "ps --fleet other"), (Some(2), expected.into()));
    let (code, line) = refusal(&place, "ps --fleet ../web");
    assert!(code == Some(2) && line.contains("can't name a fleet"), "{line}");
}

#[test]
fn a_supervisor_without_a_socket_is_named() {
    let (base, _fleets) = held(&["demo"]);
    for command in ["ps", "down"] {
        let (code, line) = refusal(&base.path().join("run"), command);
        assert_eq!(code, Some(2));
        assert!(line.starts_with("aerostat: fleet demo: its supervisor does not answer: "), "{line}");
    }
}

/// The socket takes connections, and what answers is no supervisor.
#[test]
fn an_answer_that_is_none_is_a_failure() {
    let (base, _fleets) = held(&["demo"]);
    let place = base.path().join("run");
    let listener = UnixListener::bind(place.join("demo/control.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.map(|mut stream| stream.read(&mut [0; 64]));
        }
    });
    let (code, line) = refusal(&place, "ps");
    assert_eq!(code, Some(1), "{line}");
    assert!(line.starts_with("aerostat: fleet demo: the supervisor's answer is missing: "), "{line}");
}

#[test]
fn an_unreadable_fleet_file_is_refused_before_a_fleet_is_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fleet.toml");
    fs::write(&file, b"\xff").unwrap();
    let (code, line) = refusal(directory.path(), &format!("apply {}", file.display()));
    assert!(code == Some(2) && line.contains("fleet.toml: can't read the fleet file: "), "{line}");
}

#[test]
fn words_that_are_no_text_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(env!("CARGO_BIN_EXE_aerostat")).arg("explain").arg(OsStr::from_bytes(b"\xff")).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: invalid UTF-8"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for command in [&["completions", "bash"][..], &["doctor"]] {
        let mut aerostat = Command::new(env!("CARGO_BIN_EXE_aerostat"));
        let mut child = aerostat
            .args(command)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command can be run");
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code() == Some(0), "{command:?}: {}", output.status);
    }
}
