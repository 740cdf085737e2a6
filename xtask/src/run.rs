//! `run`: builds everything and becomes `aerostat up`, so that Ctrl-C and the exit code are the
//! command's own. Where guests of the fleet build an index, text is packed for them first, and
//! their indexes are checked afterwards. The Linux machines that a fleet attaches run meanwhile.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cargo::{root, shown};
use crate::text::{Indexers, Logs};
use crate::{build, linux_guest, tools};

/// How long a fleet runs unless the user says otherwise.
const SECONDS: u64 = 30;
/// The same for a fleet whose guests build an index. Such a fleet ends by itself; this bounds one
/// that does not.
const SECONDS_TO_INDEX: u64 = 120;

/// The options of the verb. Paths are relative to the working directory.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The fleet file [default: fleets/demo.toml of this repository]
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Stop after so many seconds [default: 30, or 120 if a guest builds an index]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The file or folder that guests index [default: a part of the Rust toolchain's documentation]
    #[arg(long, value_name = "PATH")]
    text: Option<PathBuf>,
    /// Run the guests under QEMU, as is done by itself where KVM can't be used
    #[arg(long)]
    qemu: bool,
    /// Print lines instead of drawing a live view
    #[arg(long)]
    headless: bool,
    /// Write a report in JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Draw the guests' memory, targets and stalls, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Keep the guests' logs in this folder
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

pub(crate) fn perform(options: &Options) -> Result<ExitCode> {
    let machine = options.machine()?;
    let aerostat = build::host()?;
    build::apps()?;
    let fleet = options.fleet.clone().unwrap_or_else(|| root().join("fleets/demo.toml"));
    let linux = linux_guest::Machines::of_fleet(&fleet)?;
    let indexers = Indexers::of_fleet(&fleet, options.text.as_deref())?;
    if linux.is_empty() && indexers.is_none() {
        let mut command = options.up(&aerostat, &fleet, SECONDS, options.log_dir.as_deref());
        machine.choose(&mut command);
        return Err(command.exec()).with_context(|| format!("starting {}", aerostat.display()));
    }
    let logs = indexers.as_ref().map(|indexers| indexers.prepare(options.log_dir.as_deref())).transpose()?;
    let seconds = if logs.is_some() { SECONDS_TO_INDEX } else { SECONDS };
    let log_dir = logs.as_ref().map(Logs::folder).or(options.log_dir.as_deref());
    let mut command = options.up(&aerostat, &fleet, seconds, log_dir);
    machine.choose(&mut command);
    let status = run_in_its_own_group(&mut command)?;
    if !status.success() {
        return Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from));
    }
    if let Some(logs) = &logs {
        logs.verify()?;
    }
    linux.verify()?;
    Ok(ExitCode::SUCCESS)
}

/// What runs the guests.
#[derive(Clone, Copy, Debug)]
enum Machine {
    /// What the fleet file says.
    OfFile,
    Qemu,
}

impl Machine {
    fn choose(self, command: &mut Command) {
        if let Self::Qemu = self {
            command.args(["--machine", "qemu"]);
        }
    }
}

impl Options {
    /// Finds what can run the guests: QEMU where it is asked for, or where KVM can't be used.
    fn machine(&self) -> Result<Machine> {
        if self.qemu {
            tools::qemu()?;
            return Ok(Machine::Qemu);
        }
        let Err(error) = tools::kvm() else { return Ok(Machine::OfFile) };
        tools::qemu().with_context(|| format!("{error:#}; without KVM guests run under QEMU"))?;
        eprintln!("xtask: {error:#}; meanwhile the guests run under QEMU");
        Ok(Machine::Qemu)
    }

    /// Returns the command `aerostat up` for this fleet.
    fn up(&self, aerostat: &Path, fleet: &Path, seconds: u64, log_dir: Option<&Path>) -> Command {
        let mut command = Command::new(aerostat);
        command.arg("up").arg(fleet).args(["--seconds", &self.seconds.unwrap_or(seconds).to_string()]);
        if self.headless {
            command.arg("--headless");
        }
        let files = [("--report", self.report.as_deref()), ("--plot", self.plot.as_deref()), ("--log-dir", log_dir)];
        for (name, path) in files {
            if let Some(path) = path {
                command.arg(name).arg(path);
            }
        }
        command
    }
}

/// Runs `command` to its end and passes signals on to it. The command has a process group of its
/// own, so it gets each signal once, whether xtask alone got it or the terminal sent it to xtask's
/// whole group.
fn run_in_its_own_group(command: &mut Command) -> Result<ExitStatus> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("catching signals")?;
    let handle = signals.handle();
    let spawned = command.process_group(0).spawn();
    let mut child = spawned.with_context(|| format!("starting {}", shown(command)))?;
    let pid = Pid::from_child(&child);
    let passing_on = thread::spawn(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGINT { Signal::INT } else { Signal::TERM };
            // An error means that the command has just ended.
            let _ = kill_process(pid, signal);
        }
    });
    let status = child.wait().context("waiting for the run to end");
    handle.close();
    passing_on.join().expect("the thread that passes signals on does not panic");
    status
}
