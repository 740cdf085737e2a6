//! The life of a VMM process.
//!
//! A supervisor starts the program with the guest's name, its own build id, and the link as
//! standard input. The first message says what to run: [`Guest::assemble`] builds it and
//! [`MainLoop::run`] sees it through to its end, which is the last message. The process ends with
//! the supervisor: the link closes, and the kernel also sends a signal.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use aerostat_link::clock::monotonic_ns;
use aerostat_link::message::{Ending, FromVmm, Start, StartDescriptors, ToVmm};
use aerostat_link::{Link, LinkError, Patience};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use thiserror::Error;

use super::boot::BootError;
use super::guest::Guest;
use super::layout::LayoutError;
use super::machine::KvmError;
use super::main_loop::MainLoop;
use super::problems;
use super::{ASK_BUILD, BUILD_ID};

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
    #[error("the supervisor is gone")]
    SupervisorGone,
}

/// Runs one guest for the supervisor until it ends. This is the whole of a VMM process.
#[must_use]
pub fn process_main() -> ExitCode {
    let began_ns = monotonic_ns();
    let mut arguments = env::args().skip(1);
    let (name, build) = (arguments.next(), arguments.next());
    if build.is_none() && name.as_deref() == Some(ASK_BUILD) {
        println!("{BUILD_ID}");
        return ExitCode::SUCCESS;
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
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let link = Link::new(io::stdin().as_fd().try_clone_to_owned()?);
    if build != Some(BUILD_ID) {
        // The start message may be unreadable.
        return report(&link, Ending::failed(ProcessError::OtherBuild));
    }
    let (message, descriptors) = link.receive(Patience::Wait).map_err(ProcessError::NoSupervisor)?;
    let ToVmm::Start(start) = message else { return Err(ProcessError::NoStart) };
    let descriptors = StartDescriptors::from_received(descriptors, &start).ok_or(ProcessError::NoStart)?;
    let link = Arc::new(link);
    problems::report_panics(Arc::clone(&link));
    let ending = match run_guest(&link, &start, descriptors, began_ns) {
        Err(ProcessError::SupervisorGone) => return Err(ProcessError::SupervisorGone),
        Err(error) => Ending::failed(error),
        Ok(ending) => ending,
    };
    report(&link, ending)
}

/// Tells the supervisor how the guest ended.
fn report(link: &Link, ending: Ending) -> Result<(), ProcessError> {
    link.send(&FromVmm::Ended(ending), &[], Patience::Wait).map_err(|error| match error {
        LinkError::Closed => ProcessError::SupervisorGone,
        error => ProcessError::NoSupervisor(error),
    })
}

fn run_guest(
    link: &Arc<Link>,
    start: &Start,
    descriptors: StartDescriptors,
    began_ns: u64,
) -> Result<Ending, ProcessError> {
    MainLoop::start(Guest::assemble(link, start, descriptors, began_ns)?)?.run()
}
