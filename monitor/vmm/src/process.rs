//! The life of a VMM process.
//!
//! A supervisor starts the program with the guest's name, its own build id, and the link as
//! standard input. The first message says what to run. The process opens what it needs, enters its
//! [`jail`], and reads nothing of its guest's before. [`Guest::assemble`] builds the guest and
//! [`MainLoop::run`] sees it through to its end, which is the last message. Without a lease the
//! process ends when the link closes; with one it serves the next supervisor ([`Succession`]), and
//! its end is also written to a file, for a supervisor that comes later.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;
use aerostat_link::clock::monotonic_ns;
use aerostat_link::message::{Ending, FromVmm, Start, StartDescriptors, ToVmm};
use aerostat_link::{Link, LinkError, Patience, SharedPage};
use rustix::fs::fstat;
use rustix::io::Errno;
use thiserror::Error;

use super::boot::BootError;
use super::guest::Guest;
use super::host_files::{self, HostFiles};
use super::jail::{self, Bounds, Inmate, JailError, Mechanism};
use super::layout::LayoutError;
use super::machine::KvmError;
use super::main_loop::MainLoop;
use super::problems;
use super::succession::Succession;
use super::supervisor_link::SupervisorLink;
use super::{ASK_BUILD, BUILD_ID, CHECK_JAIL, MAKE_NAMESPACES};

/// Why a VMM process can't do its work.
#[derive(Debug, Error)]
pub(super) enum ProcessError {
    #[error("this command is for the supervisor only: {0}")]
    NoSupervisor(LinkError),
    #[error("aerostat-vmm and aerostat are of different builds; build both, or install both anew")]
    OtherBuild,
    #[error("the supervisor's first message is not a start")]
    NoStart,
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the guest's memory can't be mapped: {0}")]
    Memory(io::Error),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("the process can't be set up: {0}")]
    Io(#[from] io::Error),
    #[error("the process can't be set up: {0}")]
    System(#[from] Errno),
    #[error(transparent)]
    Jail(#[from] JailError),
    #[error("the supervisor is gone")]
    SupervisorGone,
}

/// Runs one guest for the supervisor until it ends. This is the whole of a VMM process.
#[must_use]
pub fn process_main() -> ExitCode {
    let began_ns = monotonic_ns();
    jail::begin();
    let mut arguments = env::args().skip(1);
    let (name, build) = (arguments.next(), arguments.next());
    if build.is_none() && name.as_deref() == Some(ASK_BUILD) {
        println!("{BUILD_ID}");
        return ExitCode::SUCCESS;
    }
    if build.is_none() && name.as_deref() == Some(MAKE_NAMESPACES) {
        return jail::make_namespaces().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if build.is_none() && name.as_deref() == Some(CHECK_JAIL) {
        return check_jail().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    match serve(build.as_deref(), began_ns) {
        Ok(()) => ExitCode::SUCCESS,
        // There is no process left to tell.
        Err(ProcessError::SupervisorGone) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("aerostat-vmm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the guest that a supervisor of this build names in its first message.
fn serve(build: Option<&str>, began_ns: u64) -> Result<(), ProcessError> {
    let link = Link::new(io::stdin().as_fd().try_clone_to_owned()?);
    if build != Some(BUILD_ID) {
        // The start message may be unreadable.
        return report(&SupervisorLink::new(link), None, Ending::failed(ProcessError::OtherBuild));
    }
    let (message, descriptors) = link.receive(Patience::Wait).map_err(ProcessError::NoSupervisor)?;
    let ToVmm::Start(start) = message else { return Err(ProcessError::NoStart) };
    let mut descriptors = StartDescriptors::from_received(descriptors, &start).ok_or(ProcessError::NoStart)?;
    let (succession, record) = match (start.lease, descriptors.succession.take()) {
        (Some(lease), Some(succession)) => {
            (Some(Succession::new(succession.listener, lease)?), Some(File::from(succession.ended)))
        }
        _ => (None, None),
    };
    // A supervisor that was gone before this process listened has a successor that found nothing,
    // and starts the guest anew.
    if link.is_hung_up().map_err(ProcessError::NoSupervisor)? {
        return Err(ProcessError::SupervisorGone);
    }
    let link = Arc::new(SupervisorLink::new(link));
    problems::report_panics(Arc::clone(&link));
    if let Some(record) = &record {
        jail::record_violations_in(record.as_fd());
    }
    let guest = prepare(&start, &mut descriptors, began_ns)
        .and_then(|(files, registers)| Guest::assemble(&link, &start, (descriptors, files), registers));
    let ending = match guest.and_then(|guest| MainLoop::start(guest, succession)?.run()) {
        Err(ProcessError::SupervisorGone) => return Err(ProcessError::SupervisorGone),
        Err(error) => Ending::failed(error),
        Ok(ending) => ending,
    };
    report(&link, record, ending)
}

/// Opens what has to be opened by name, and enters the jail. What a guest controls is read later.
fn prepare(
    start: &Start,
    descriptors: &mut StartDescriptors,
    began_ns: u64,
) -> Result<(HostFiles, SharedPage), ProcessError> {
    let registers = SharedPage::map(&descriptors.registers)?;
    registers.mark_boot(BootStage::Process, began_ns);
    host_files::expose_to_oom_killer();
    let files = HostFiles::open(descriptors)?;
    let files_written = descriptors.disks.iter().chain(&descriptors.host_swap);
    let sizes = files_written.map(|disk| fstat(disk).map(|disk| disk.st_size.unsigned_abs()));
    let bounds = Bounds {
        memory: FrameCount(start.memory_frames),
        disks: start.disks.len() as u64,
        largest_file: sizes.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0),
    };
    let namespaces = std::mem::take(&mut descriptors.namespaces);
    registers.mark_boot(BootStage::Opened, monotonic_ns());
    // What this host lacks, `aerostat doctor` says.
    jail::enter(Inmate { process: host_files::own_number(), bounds, namespaces })?;
    registers.mark_boot(BootStage::Jailed, monotonic_ns());
    Ok((files, registers))
}

/// Enters the jail without a guest and prints a line for each mechanism that this host lacks.
fn check_jail() -> Result<(), ProcessError> {
    let bounds = Bounds { memory: FrameCount::ZERO, disks: 0, largest_file: 0 };
    // The supervisor that asks has the namespaces, or not.
    let missing = jail::enter(Inmate { process: host_files::own_number(), bounds, namespaces: Vec::new() })?;
    for mechanism in missing.into_iter().filter(|missing| *missing != Mechanism::Namespaces) {
        println!("{mechanism}");
    }
    Ok(())
}

/// Tells how the guest ended: this supervisor, and by `record` a later one.
fn report(link: &SupervisorLink, record: Option<File>, ending: Ending) -> Result<(), ProcessError> {
    // The record first: the supervisor may be killed before it has handled the message.
    let recorded = record.is_some_and(|record| serde_json::to_writer(record, &ending).is_ok());
    match link.send(&FromVmm::Ended(ending), Patience::Wait) {
        Ok(()) => Ok(()),
        Err(LinkError::Closed) if recorded => Ok(()),
        Err(LinkError::Closed) => Err(ProcessError::SupervisorGone),
        Err(error) => Err(ProcessError::NoSupervisor(error)),
    }
}
