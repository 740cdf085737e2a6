//! Finding the fleet that a command is for.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::Failure;
use crate::control::{Client, ClientError};
use crate::display::printable;
use crate::host::run_directory::{FleetEntry, FleetName, connect, fleets};

/// The fleet that a command is for.
#[derive(Args, Debug)]
pub(in crate::cli) struct FleetChoice {
    /// The fleet; without it, the only one that runs.
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// Where `aerostat up --run-dir` keeps the fleet's socket.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

/// A fleet that runs.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) name: FleetName,
    run_dir: Option<PathBuf>,
    pub(super) client: Client,
}

/// Why there is no fleet to talk to.
#[derive(Debug, thiserror::Error)]
enum ChoiceError {
    #[error("no fleet runs; start one with `aerostat up FLEET.toml --detach`")]
    NoneRuns,
    #[error("no fleet runs, and the supervisor of {0} has ended; start it again with `aerostat up`")]
    NoneRunsAnyMore(String),
    #[error("several fleets run: {0}; choose one with --fleet NAME")]
    Several(String),
    #[error("fleet {name} does not run; these run: {others}")]
    OthersRun { name: FleetName, others: String },
    #[error("fleet {name}: its supervisor does not answer: {error}")]
    DoesNotAnswer { name: FleetName, error: io::Error },
    #[error("the run directory can't be read: {0}")]
    Unreadable(io::Error),
}

impl FleetChoice {
    /// Finds the fleet and checks that its supervisor takes connections.
    pub(super) fn connect(&self) -> Result<Connection, Failure> {
        let base = self.run_dir.as_deref();
        let wanted = self.fleet.clone().map(FleetName::new).transpose().map_err(Failure::refused)?;
        let known = fleets(base).map_err(ChoiceError::Unreadable).map_err(Failure::refused)?;
        let name = choose(wanted, &known).map_err(Failure::refused)?;
        connect(base, &name).map_err(|error| {
            // The name is the user's, or that of a supervisor that has just ended.
            Failure::refused(ChoiceError::DoesNotAnswer { name: name.clone(), error })
        })?;
        Ok(Connection::new(name, base))
    }
}

/// Returns the fleet that is meant.
fn choose(wanted: Option<FleetName>, known: &[FleetEntry]) -> Result<FleetName, ChoiceError> {
    let (running, ended): (Vec<_>, Vec<_>) = known.iter().partition(|entry| entry.supervisor.is_some());
    let list =
        |entries: &[&FleetEntry]| entries.iter().map(|entry| entry.fleet.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, &running[..]) {
        (Some(name), _) if running.iter().any(|entry| entry.fleet == name) => Ok(name),
        (None, [only]) => Ok(only.fleet.clone()),
        (_, []) if ended.is_empty() => Err(ChoiceError::NoneRuns),
        (_, []) => Err(ChoiceError::NoneRunsAnyMore(list(&ended))),
        (Some(name), _) => Err(ChoiceError::OthersRun { name, others: list(&running) }),
        (None, _) => Err(ChoiceError::Several(list(&running))),
    }
}

impl Connection {
    fn new(name: FleetName, base: Option<&Path>) -> Self {
        let (fleet, run_dir) = (name.clone(), base.map(Path::to_owned));
        let client = Client::new(move || connect(run_dir.as_deref(), &fleet));
        Self { name, run_dir: base.map(Path::to_owned), client }
    }

    /// Returns whether the fleet's supervisor still takes connections.
    pub(super) fn is_alive(&self) -> bool {
        connect(self.run_dir.as_deref(), &self.name).is_ok()
    }

    /// Returns the failure that an error of the client is, in a line.
    pub(super) fn failure(&self, error: &ClientError) -> Failure {
        // What is refused may repeat a guest's words.
        let line = printable(&error.to_string());
        match error {
            ClientError::Refused(_) => Failure::refused(line),
            ClientError::Unreachable(_) | ClientError::Broken(_) => {
                Failure::broken(format!("fleet {}: {line}", self.name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::host::run_directory::{FleetEntry, FleetName};

    fn name(name: &str) -> FleetName {
        FleetName::new(name).unwrap()
    }

    /// What is chosen of fleets, or the error. Those in upper case have no supervisor.
    fn chosen(wanted: Option<&str>, known: &[&str]) -> String {
        let entry = |text: &&str| FleetEntry {
            fleet: name(text),
            supervisor: text.chars().all(|letter| letter.is_ascii_lowercase()).then_some(7),
        };
        let known: Vec<_> = known.iter().map(entry).collect();
        choose(wanted.map(name), &known).map_or_else(|error| error.to_string(), |name| name.to_string())
    }

    #[test]
    fn the_only_fleet_that_runs_is_meant() {
        assert_eq!(chosen(None, &["demo", "OLD"]), "demo");
        assert_eq!(chosen(Some("web"), &["demo", "web"]), "web");
    }

    #[test]
    fn an_error_lists_what_runs() {
        assert_eq!(chosen(None, &["demo", "web"]), "several fleets run: demo, web; choose one with --fleet NAME");
        assert_eq!(chosen(Some("x"), &["demo", "web"]), "fleet x does not run; these run: demo, web");
        let none = "no fleet runs; start one with `aerostat up FLEET.toml --detach`";
        assert_eq!((chosen(None, &[]).as_str(), chosen(Some("x"), &[]).as_str()), (none, none));
        let ended = "no fleet runs, and the supervisor of OLD has ended; start it again with `aerostat up`";
        assert_eq!((chosen(None, &["OLD"]).as_str(), chosen(Some("OLD"), &["OLD"]).as_str()), (ended, ended));
    }
}
