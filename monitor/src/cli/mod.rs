//! The command line: its arguments, and errors, which are one line on standard error that says what
//! to do.
//!
//! Exit codes: 0, all went well; 1, it ran and something went wrong (a guest failed, an application
//! found errors, the pool was overdrawn, a fleet did not answer, a guest did not reach its state in
//! time); 2, refused, nothing was started or changed.

mod client;
mod completions;
mod detach;
mod doctor;
mod inheritance;
mod launcher;
mod report_file;
mod service_manager;
mod simulate;
mod state_keeper;
mod up;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::client::Action;
use self::completions::{CompletionsArguments, ManArguments};
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
    /// List the guests of a fleet.
    Ps(client::PsArguments),
    /// Watch a fleet on the whole screen.
    Top(client::TopArguments),
    /// Print the figures of a fleet or of a guest.
    Stats(client::StatsArguments),
    /// Say why a guest has the size that it has, and what would change it.
    Explain(client::GuestArguments),
    /// Print where a guest's processor is, and the end of its log.
    Inspect(client::GuestArguments),
    /// Print the events of a run.
    Events(client::EventsArguments),
    /// Print the log of a guest.
    Logs(client::LogsArguments),
    /// Start a guest.
    Start(client::ActionArguments),
    /// Ask a guest to end, and kill it if it does not.
    Stop(client::ActionArguments),
    /// Kill a guest.
    Kill(client::ActionArguments),
    /// End a guest and start it again.
    Restart(client::ActionArguments),
    /// Change the settings of a guest, all of them or none.
    Set(client::SetArguments),
    /// Set the size that a guest is to have, or leave it to the scheduler again.
    Target(client::TargetArguments),
    /// Show or resize the pool.
    Pool(client::PoolArguments),
    /// Change a fleet to match a fleet file; print the plan first.
    Apply(client::ApplyArguments),
    /// End a fleet.
    Down(client::DownArguments),
    /// Check what this host has for a fleet, and say what to do about the rest.
    Doctor,
    /// Print a script that completes commands and options in a shell.
    Completions(CompletionsArguments),
    /// Write the manual pages of all commands.
    Man(ManArguments),
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
    /// The reader of standard output went away: it has seen enough, and nothing is wrong.
    #[error("standard output is closed")]
    SeenEnough,
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
            Self::SeenEnough => 0,
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
        Verb::Ps(arguments) => client::ps(&arguments),
        Verb::Top(arguments) => client::top(&arguments),
        Verb::Stats(arguments) => client::stats(&arguments),
        Verb::Explain(arguments) => client::explain(&arguments),
        Verb::Inspect(arguments) => client::inspect(&arguments),
        Verb::Events(arguments) => client::events(&arguments),
        Verb::Logs(arguments) => client::logs(&arguments),
        Verb::Start(arguments) => client::act(Action::Start, &arguments),
        Verb::Stop(arguments) => client::act(Action::Stop, &arguments),
        Verb::Kill(arguments) => client::act(Action::Kill, &arguments),
        Verb::Restart(arguments) => client::act(Action::Restart, &arguments),
        Verb::Set(arguments) => client::set(&arguments),
        Verb::Target(arguments) => client::target(&arguments),
        Verb::Pool(arguments) => client::pool(&arguments),
        Verb::Apply(arguments) => client::apply(&arguments),
        Verb::Down(arguments) => client::down(&arguments),
        Verb::Doctor => doctor::doctor(),
        Verb::Completions(arguments) => completions::completions(&arguments, Arguments::command()),
        Verb::Man(arguments) => completions::man(&arguments, Arguments::command()),
        Verb::Simulate(arguments) => simulate::simulate(&arguments),
    };
    match result {
        Ok(exit_code) => exit_code,
        Err(Failure::SeenEnough) => ExitCode::SUCCESS,
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

    fn is_accepted(line: &str) -> bool {
        Arguments::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn commands_take_what_they_need_and_nothing_else() {
        for line in [
            "aerostat ps --fleet web --json",
            "aerostat top --interval 500ms",
            "aerostat stats",
            "aerostat stats web --json --watch 1s",
            "aerostat start web --wait 5s",
            "aerostat stop web --no-wait",
            "aerostat set web --min 64M --shares high",
            "aerostat set web --shares 3000 --reservation 32M",
            "aerostat target web 200M",
            "aerostat target web auto",
            "aerostat pool",
            "aerostat pool 1G",
            "aerostat apply fleet.toml --dry-run",
            "aerostat events -f --after 7",
            "aerostat logs web -f -n 10",
            "aerostat down --no-wait",
        ] {
            assert!(is_accepted(line), "{line}");
        }
        for line in [
            "aerostat set web",
            "aerostat set --min 64M",
            "aerostat set web --min 64",
            "aerostat set web --shares 0",
            "aerostat target web",
            "aerostat target web never",
            "aerostat start",
            "aerostat start web --wait 30",
            "aerostat stop web --wait 3s --no-wait",
            "aerostat pool 1T",
            "aerostat apply",
            "aerostat logs",
            "aerostat explain",
            "aerostat events --after -1",
        ] {
            assert!(!is_accepted(line), "{line}");
        }
    }

    #[test]
    fn the_unit_for_systemd_starts_a_command_that_exists() {
        let unit = include_str!("../../../docs/aerostat@.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/")).unwrap();
        assert!(is_accepted(line), "{line}");
        for setting in ["Type=notify", "NotifyAccess=main", "WatchdogSec=", "KillMode=process"] {
            assert!(unit.lines().any(|line| line.starts_with(setting)), "{setting}");
        }
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
