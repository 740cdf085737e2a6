//! `aerostat up --detach`: the fleet runs on in a process of its own.
//!
//! The command starts itself again with a hidden option, and waits until that process writes
//! [`READY`] to its standard output: all guests have started. Errors until then are the process's
//! own, on the standard error that both share. Afterwards the process has a session of its own and
//! no terminal.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Failure;

/// The hidden option of the process that runs the fleet.
pub(super) const OPTION: &str = "detached-process";
/// What that process writes when all guests have started.
const READY: &[u8] = b"ready\n";

/// Starts this command again, detached, and waits until its guests have started or it has ended.
pub(super) fn start() -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::refused(format!("the fleet can't be started in the background: {error}"));
    let program = env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).arg(format!("--{OPTION}")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(READY.len() as u64).read_to_end(&mut said).map_err(failed)?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(failed)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves the session of the process that started this one: no terminal's signals reach it. The
/// standard streams stay until [`ready`].
pub(super) fn leave_session() {
    // Fails only for the leader of a process group, which has no terminal to leave.
    let _ = setsid();
}

/// Tells the waiting process that all guests have started, and leaves the standard streams.
pub(super) fn ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    let told = stdout.write_all(READY).and_then(|()| stdout.flush());
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    dup2_stderr(&nothing)?;
    told
}
