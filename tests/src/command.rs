//! The `aerostat` command, run as a user runs it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::environment::aerostat;
use crate::guest::DEADLINE;

/// What a run of the command left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to the standard output.
    pub stdout: String,
    /// What it wrote to the standard error.
    pub stderr: String,
}

/// Runs `aerostat` with `arguments` to its end.
///
/// # Panics
/// When it can't be started or does not end in time.
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
    let sink = |path| File::create(path).expect("a file can be made in a fresh temporary folder");
    let mut command = Command::new(aerostat());
    command.args(arguments).stdin(Stdio::null()).stdout(sink(&stdout)).stderr(sink(&stderr));
    let mut process = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let text = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().expect("a child that was not reaped can be waited for") {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = process.kill();
            let _ = process.wait();
            panic!("{command:?} did not end in time\nstdout:\n{}\nstderr:\n{}", text(&stdout), text(&stderr));
        }
        thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: text(&stdout), stderr: text(&stderr) }
}
