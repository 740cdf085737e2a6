//! `aerostat up`: checks the fleet, runs it, and reports the outcome.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::inheritance::Inheritance;
use super::launcher::Launcher;
use super::report_file::NamedFile;
use super::service_manager::ServiceManager;
use super::state_keeper::StateKeeper;
use super::{Failure, detach};
use crate::control::{MetricsListener, Publisher, Server, ServerOptions, publisher};
use crate::display::{Display, EventLog, Mode, Sink, run_svg, write_summary};
use crate::fleet::{EVENTS, Fleet, GuestSpec, Machine};
use crate::fleet_checks;
use crate::host::cgroup::PoolGroup;
use crate::host::run_directory::{FleetName, RunDirectory, fleets};
use crate::host::{log_file, oom, qemu, vmm_program};
use crate::report;
use crate::scheduler::Policy;
use crate::supervisor::{
    Beginning, Event, FleetStatus, Observer, Outcome, PhysicalMemory, RunOptions, RunUntil, SavedFleet, mailbox,
    resume, run,
};
use crate::vmm::{self, KvmError};

#[derive(Args, Debug)]
pub(super) struct UpArguments {
    /// The fleet file.
    fleet: PathBuf,
    /// Stop the guests after so many seconds; without it they run until they end or Ctrl-C.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Print plain lines instead of a live table.
    #[arg(long)]
    headless: bool,
    /// Write a report of the run to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Draw the guests' memory, targets and stalls to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Keep every guest's log and the list of decisions in this directory. A detached fleet has one
    /// in any case: below /var/log/aerostat, or the user's state directory.
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// The fleet's name, by which other commands find it; the name of the file, less its suffix,
    /// if it is not given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Return when all guests have started; the fleet runs on until `aerostat down`.
    #[arg(long)]
    detach: bool,
    /// Keep the fleet's socket and state below this directory.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Serve metrics for Prometheus at this address, which must be a loopback address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
    /// Run the guests under another machine than the file says; attached machines stay what they
    /// are.
    #[arg(long, value_name = "MACHINE")]
    machine: Option<MachineOption>,
    /// The process of a detached fleet.
    #[arg(long = detach::OPTION, hide = true)]
    is_detached: bool,
}

/// A machine for all guests that are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MachineOption {
    /// QEMU, on KVM where that is hardware and can be used.
    Qemu,
}

pub(super) fn up(arguments: &UpArguments) -> Result<ExitCode, Failure> {
    if arguments.detach && !arguments.is_detached {
        return detach::start();
    }
    let fleet = Fleet::load(&arguments.fleet).map_err(Failure::refused)?;
    let fleet = match arguments.machine {
        Some(MachineOption::Qemu) => fleet.under_qemu(),
        None => fleet,
    };
    let name = fleet_name(arguments)?;
    check_programs(&fleet)?;
    // Guests of an earlier supervisor have their memory and their disks already.
    if !is_left_behind(arguments, &name) {
        check(&fleet, &arguments.fleet)?;
    }
    if arguments.is_detached {
        detach::leave_session();
    }
    let directory = RunDirectory::open(arguments.run_dir.as_deref(), &name).map_err(Failure::refused)?;
    let inheritance = Inheritance::take_over(&directory)?;
    let fleet = match &inheritance {
        Some(inheritance) => inheritance.fleet(fleet),
        None => fleet.with_absolute_paths(),
    };
    let directory = Arc::new(directory);
    let outcome = run_in(&directory, arguments, (&fleet, inheritance));
    // The threads of the run have ended, and with them their hold on the directory.
    if let Some(directory) = Arc::into_inner(directory) {
        directory.close();
    }
    outcome
}

/// Checks that what runs the fleet's machines is there.
fn check_programs(fleet: &Fleet) -> Result<(), Failure> {
    let has = |machine: Machine| fleet.guests.iter().any(|guest| guest.machine == machine);
    if has(Machine::Aerostat) {
        vmm::check_kvm().map_err(without_kvm)?;
        vmm_program::find().map_err(Failure::refused)?;
    }
    if has(Machine::Qemu) {
        qemu::version(qemu::PROGRAM).map_err(Failure::refused)?;
    }
    Ok(())
}

/// Returns whether an earlier supervisor of the fleet has not ended as it should.
fn is_left_behind(arguments: &UpArguments, name: &FleetName) -> bool {
    let fleets = fleets(arguments.run_dir.as_deref()).unwrap_or_default();
    fleets.iter().any(|entry| entry.fleet == *name && entry.supervisor.is_none())
}

/// Checks what the fleet needs of the host before any guest starts.
fn check(fleet: &Fleet, path: &Path) -> Result<(), Failure> {
    let refused = |why: String| Failure::refused(format!("{}: {why}", path.display()));
    fleet_checks::check_descriptors(fleet).map_err(|error| refused(error.to_string()))?;
    let cached_swap = fleet_checks::check_guests(&fleet.guests).map_err(Failure::refused)?;
    fleet_checks::check_host(fleet, cached_swap, fleet_checks::attached_memory(&fleet.guests))
        .map_err(|error| refused(error.to_string()))
}

/// Runs a checked fleet whose run directory is held, and reports the outcome.
fn run_in(
    directory: &Arc<RunDirectory>,
    arguments: &UpArguments,
    (fleet, inheritance): (&Fleet, Option<Inheritance>),
) -> Result<ExitCode, Failure> {
    oom::protect_supervisor();
    let log_dir = log_directory(arguments, directory.fleet());
    let open = if inheritance.is_some() { log_file::append } else { log_file::begin };
    let events = log_dir.as_deref().map(|directory| open_logs(directory, open)).transpose()?;
    let report = arguments.report.as_deref().map(|path| NamedFile::create(path, "report")).transpose()?;
    let plot = arguments.plot.as_deref().map(|path| NamedFile::create(path, "plot")).transpose()?;
    let display = if arguments.is_detached { None } else { Some(open_display(arguments)?) };
    let metrics = arguments.metrics.map(MetricsListener::bind).transpose().map_err(Failure::refused)?;
    let (publisher, feed) = publisher();
    let (mailbox, inbox) = mailbox().map_err(Failure::refused)?;
    let server = Server::start(ServerOptions {
        fleet: directory.fleet().to_string(),
        listener: directory.listen().map_err(no_control)?,
        metrics,
        mailbox,
        feed,
        log_dir: log_dir.clone(),
    });
    let server = server.map_err(no_control)?;
    let limit = arguments.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    // Where none can be made, `doctor` says so and what is then not guaranteed.
    let pool = PoolGroup::create().ok();
    let options = RunOptions {
        until: if arguments.is_detached { RunUntil::Shutdown } else { RunUntil::GuestsEnd },
        limit,
        policy: Policy { idle_tax: fleet.idle_tax, ..Policy::default() },
        keeps_samples: report.is_some() || plot.is_some(),
        physical: pool.clone().map_or(PhysicalMemory::AsReported, PhysicalMemory::ByControlGroup),
        inbox: Some(inbox),
        ..RunOptions::default()
    };
    let mut observers = Observers {
        display,
        events,
        publisher,
        service_manager: ServiceManager::from_environment(),
        states: StateKeeper::start(Arc::clone(directory)).map_err(Failure::refused)?,
        detached: arguments.is_detached,
    };
    let launcher = Launcher { directory: Arc::clone(directory), pool, logs: log_dir };
    let start = move |spec: &GuestSpec, target| launcher.start(spec, target);
    let outcome = match inheritance {
        None => run(fleet, options, start, &mut observers),
        Some(Inheritance { found, saved }) => resume(Beginning { fleet, found, saved }, options, start, &mut observers),
    };
    let outcome = outcome.map_err(Failure::broken)?;
    observers.service_manager.stopping();
    drop(server);

    // The report first: it may be wanted although standard output is not read.
    let reported = report.map(|file| write_report(&outcome, file)).transpose();
    let plotted = plot.map(|file| write_plot(&outcome, file)).transpose();
    let mut summary = Vec::new();
    write_summary(&outcome, &mut summary).map_err(Failure::broken)?;
    let Observers { display, events, states, .. } = observers;
    drop(states);
    if let Some(display) = display {
        let output = display.into_output();
        output.last_text(String::from_utf8_lossy(&summary).into_owned());
        // Where standard output is closed or not read the summary is lost; the report and the exit
        // code still count.
        let _ = output.finish();
    }
    drop(events);
    reported?;
    plotted?;
    Ok(if outcome.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the fleet's name: as given, or that of its file.
fn fleet_name(arguments: &UpArguments) -> Result<FleetName, Failure> {
    match &arguments.name {
        Some(name) => FleetName::new(name.clone()).map_err(Failure::refused),
        None => FleetName::of_file(&arguments.fleet).map_err(|error| {
            Failure::refused(format!("{}: {error}; or give one with --name", arguments.fleet.display()))
        }),
    }
}

/// Returns the directory of the logs, if there is to be one.
fn log_directory(arguments: &UpArguments, fleet: &FleetName) -> Option<PathBuf> {
    let state = || {
        let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        let base = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
        let is_root = rustix::process::geteuid().is_root();
        let base = if is_root { "/var/log".into() } else { base.unwrap_or_else(|| "/tmp".into()) };
        base.join("aerostat").join(fleet.as_str())
    };
    arguments.log_dir.clone().or_else(|| arguments.is_detached.then(state))
}

fn open_display(arguments: &UpArguments) -> Result<Display<Sink>, Failure> {
    let mode = if arguments.headless { Mode::Plain } else { Mode::of_stdout() };
    let output = Sink::to_descriptor(io::stdout())
        .map_err(|error| Failure::refused(format!("standard output can't be written: {error}")))?;
    Ok(Display::new(output, mode))
}

/// Writes the report and gives the file its name.
fn write_report(outcome: &Outcome, file: NamedFile<'_>) -> Result<(), Failure> {
    let mut text = Vec::new();
    match report::write(outcome, &mut text) {
        Ok(()) => file.publish(String::from_utf8_lossy(&text).into_owned()),
        Err(error) => Err(file.failure(format_args!("can't be written: {error}"))),
    }
}

/// Draws the run and gives the file its name.
fn write_plot(outcome: &Outcome, file: NamedFile<'_>) -> Result<(), Failure> {
    match run_svg(outcome) {
        Ok(svg) => file.publish(svg),
        Err(why) => Err(file.failure(format_args!("can't be drawn: {why}"))),
    }
}

fn no_control(error: io::Error) -> Failure {
    Failure::refused(format!("the fleet can't be controlled: {error}"))
}

fn without_kvm(error: KvmError) -> Failure {
    Failure::refused(format!(
        "{error}; without KVM, guests run under QEMU: --machine qemu, or machine = \"qemu\" in the fleet file"
    ))
}

/// The observers of a run.
struct Observers {
    /// `None` for a detached fleet.
    display: Option<Display<Sink>>,
    events: Option<EventLog<Sink>>,
    publisher: Publisher,
    service_manager: ServiceManager,
    states: StateKeeper,
    detached: bool,
}

impl Observer for Observers {
    fn on_ready(&mut self) {
        if self.detached {
            // Where nothing can be told, the fleet runs all the same.
            let _ = detach::ready();
        }
        self.service_manager.ready();
    }

    fn on_change(&mut self, saved: SavedFleet, then: Box<dyn FnOnce() + Send>) {
        self.states.keep(saved, then);
    }

    fn on_event(&mut self, event: &Event) {
        if let Some(display) = &mut self.display {
            display.on_event(event);
        }
        if let Some(events) = &mut self.events {
            events.on_event(event);
        }
        self.publisher.on_event(event);
    }

    fn on_poll(&mut self, status: &FleetStatus) {
        self.service_manager.turned(status.elapsed);
        if let Some(display) = &mut self.display {
            display.on_poll(status);
        }
        self.publisher.on_poll(status);
    }
}

/// Creates the log directory, and opens the event log in it by `open`.
fn open_logs(directory: &Path, open: fn(&Path) -> io::Result<File>) -> Result<EventLog<Sink>, Failure> {
    fs::create_dir_all(directory).map_err(|error| file_failure(directory, &error))?;
    let path = directory.join(format!("{EVENTS}.log"));
    Ok(EventLog::new(
        Sink::new(open(&path).map_err(|error| file_failure(&path, &error))?)
            .map_err(|error| file_failure(&path, &error))?,
    ))
}

fn file_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::refused(format!("{}: can't be written: {error}; choose another place", path.display()))
}
