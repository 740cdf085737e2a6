//! Runs the `aerostat` command as a user runs it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::environment::aerostat;
use crate::guest::{DEADLINE, POLL};
use crate::log_file::LogFile;

/// The result of a run of the command.
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
#[track_caller]
pub fn run<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    run_through(&[], arguments)
}

/// Runs `aerostat` with `arguments` to its end, by way of the command `wrapper`, which must execute
/// the command that its last arguments name.
///
/// # Panics
/// When it can't be started or does not end in time.
#[track_caller]
pub fn run_through<A: AsRef<OsStr>>(wrapper: &[&str], arguments: impl IntoIterator<Item = A>) -> Output {
    let mut words: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    words.push(aerostat().into());
    words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    let mut running = Running::start(&words);
    running.wait_for_end();
    running.output().expect("the command has ended")
}

/// A running command in a process group of its own, as a shell starts it. It is killed when the
/// value is dropped.
#[derive(Debug)]
pub struct Running {
    process: Child,
    status: Option<ExitStatus>,
    stdout: LogFile,
    stderr: LogFile,
    /// The end of the pipe that is not read. It stays open, since writing to a pipe without a
    /// reader is an error.
    _unread: Option<OwnedFd>,
    _folder: TempDir,
}

/// Where the command's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// To files, which the test reads.
    Files,
    /// To a full pipe that is not read, standard output and standard error alike.
    FullPipe,
}

impl Running {
    /// Starts the program that `words` begin with.
    #[track_caller]
    pub(crate) fn start(words: &[OsString]) -> Self {
        Self::start_with(words, Reader::Files)
    }

    /// Starts the program that `words` begin with; `reader` says where its output goes.
    #[track_caller]
    pub(crate) fn start_with(words: &[OsString], reader: Reader) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| LogFile::new(folder.path().join(name)));
        let sink = |path: &Path| File::create(path).expect("a file can be made in a fresh temporary folder");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).process_group(0);
        command.stdout(sink(stdout.path())).stderr(sink(stderr.path()));
        let unread = (reader == Reader::FullPipe).then(|| {
            let (unread, full) = full_pipe().expect("a pipe can be made and filled");
            command.stdout(full.try_clone().expect("a descriptor can be copied")).stderr(full);
            unread
        });
        let process = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        Self { process, status: None, stdout, stderr, _unread: unread, _folder: folder }
    }

    /// Returns the process's number.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Returns what the command has written to the standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Returns the result if the command has ended.
    pub(crate) fn output(&mut self) -> Option<Output> {
        if self.status.is_none() {
            self.status = self.process.try_wait().expect("a child that was not reaped can be waited for");
        }
        self.status.map(|status| Output { status, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child that was not reaped can be sent a signal");
    }

    /// Sends a signal to all processes of the group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).expect("a child that was not reaped is in its group");
    }

    #[track_caller]
    fn wait_for_end(&mut self) {
        let start = Instant::now();
        while self.output().is_none() {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            assert!(
                start.elapsed() < DEADLINE,
                "the command did not end in time\nstdout:\n{stdout}\nstderr:\n{stderr}"
            );
            thread::sleep(POLL);
        }
    }
}

/// Makes a pipe that is full. Returns the end to read from and the end to write to.
fn full_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (unread, full) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&full, OFlags::NONBLOCK)?;
    while rustix::io::write(&full, &[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&full, OFlags::empty())?;
    Ok((unread, full))
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was reaped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
