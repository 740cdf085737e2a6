//! The application's first thread: from the end of the boot to the guest's exit code.
#![allow(unsafe_code, reason = "calls a function that the application's crate defines")]

use aerostat_abi::boot::BootMark;
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::to_usize;
use spin::Once;

use super::disk;
use crate::arch::x86_64::machine_ports;
use crate::balloon;
use crate::command_line::{self, CommandLine};
use crate::report;
use crate::thread::{self, Priority};

unsafe extern "Rust" {
    /// Defined by [`crate::app!`].
    safe fn aerostat_app_main() -> Outcome;
}

static COMMAND_LINE: Once<CommandLine> = Once::new();

/// How an application ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked to do.
    Success,
    /// It did not.
    Failure,
}

/// Returns the guest's command line.
#[must_use]
pub fn arguments() -> &'static str {
    COMMAND_LINE.get().map_or("", CommandLine::as_str)
}

/// Returns the words of the command line that are meant for the application.
pub fn words() -> impl Iterator<Item = &'static str> {
    COMMAND_LINE.get().into_iter().flat_map(CommandLine::application_words)
}

/// Returns the bytes of a size as command lines give it: a whole number with a unit, `K`, `M` or
/// `G` (1024-based).
#[must_use]
pub fn parse_size(text: &str) -> Option<usize> {
    command_line::parse_size(text).map(to_usize)
}

/// Starts the application's first thread.
pub(crate) fn start(command_line: CommandLine) {
    COMMAND_LINE.call_once(|| command_line);
    disk::start();
    if let Err(error) = thread::spawn_entry("main", Priority::Application, run, 0) {
        report::bad_machine(error);
    }
}

extern "C" fn run(_: u64) {
    machine_ports::mark(BootMark::Main);
    let exit = match aerostat_app_main() {
        Outcome::Success => GuestExit::Success,
        Outcome::Failure => GuestExit::Failure,
    };
    balloon::flush_report();
    machine_ports::exit(exit)
}
