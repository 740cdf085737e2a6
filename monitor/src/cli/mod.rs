//! The command line: its arguments, and errors, which are one line on standard error that says what
//! to do.
//!
//! Exit codes: 0, all went well; 1, it ran and something went wrong (a guest failed, an application
//! found errors, the pool was overdrawn); 2, refused, nothing was started.

mod detach;
mod report_file;
mod service_manager;
mod simulate;
mod up;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::simulate::SimulateArguments;
use self::up::UpArguments;
use crate::display::Sink;

/// Packs memory-elastic unikernel guests on one host.
#[derive(Debug, Parser)]
#[command(name = "aerostat", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Boot the guests of a fleet file and move memory between them.
    Up(UpArguments),
    /// Run a trace of simulated guests under the scheduler and under the rules of other systems.
    Simulate(SimulateArguments),
}

/// Why a command failed: the line to print and the exit code.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was started.
    #[error("{0}")]
    Refused(String),
    /// It ran, and something went wrong.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    fn refused(error: impl ToString) -> Self {
        Self::Refused(error.to_string())
    }

    fn broken(error: impl ToString) -> Self {
        Self::Broken(error.to_string())
    }

    const fn exit_code(&self) -> u8 {
        match self {
            Self::Broken(_) => 1,
            Self::Refused(_) => 2,
        }
    }
}

/// The whole of the `aerostat` command.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Up(arguments) => up::up(&arguments),
        Verb::Simulate(arguments) => simulate::simulate(&arguments),
    };
    match result {
        Ok(exit_code) => exit_code,
        Err(failure) => {
            complain(&format!("aerostat: {failure}\n"));
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Writes to standard error, as long as it is read.
fn complain(line: &str) {
    if let Ok(sink) = Sink::to_descriptor(io::stderr()) {
        sink.last_text(line.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_simulation_needs_a_trace() {
        assert!(Arguments::try_parse_from(["aerostat", "simulate", "trace.toml"]).is_ok());
        assert!(Arguments::try_parse_from(["aerostat", "simulate"]).is_err());
    }

    #[test]
    fn a_run_needs_a_fleet_and_a_time_that_is_one() {
        assert!(Arguments::try_parse_from(["aerostat", "up", "fleet.toml"]).is_ok());
        assert!(Arguments::try_parse_from(["aerostat", "up", "fleet.toml", "--seconds", "20", "--headless"]).is_ok());
        assert!(Arguments::try_parse_from(["aerostat", "up"]).is_err());
        for seconds in ["0", "-1", "1.5", "never"] {
            assert!(Arguments::try_parse_from(["aerostat", "up", "fleet.toml", "--seconds", seconds]).is_err());
        }
    }
}
