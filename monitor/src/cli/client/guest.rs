//! `aerostat start`, `stop`, `kill`, `restart`, `set` and `target`: changing a guest.

use std::process::ExitCode;
use std::str::FromStr;

use clap::Args;

use super::connection::FleetChoice;
use super::output::print;
use crate::cli::Failure;
use crate::control::api::{Guest, GuestPatch, SharesSetting, TargetSetting};
use crate::control::{Client, ClientError, Wait, api};
use crate::display::printable;
use crate::scheduler::Shares;
use crate::size::{Size, SizeError};
use crate::span::Span;

/// How long a command waits for its effect, in seconds. A guest that does not end when it is asked
/// is killed after ten.
const PATIENCE: &str = "30s";

/// What becomes of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Action {
    Start,
    Stop,
    Kill,
    Restart,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ActionArguments {
    /// The guest.
    guest: String,
    #[command(flatten)]
    fleet: FleetChoice,
    /// How long to wait until it is done, such as 30s. A start that is not done then is given up.
    #[arg(long, value_name = "TIME", default_value = PATIENCE)]
    wait: Span,
    /// Return at once.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
}

#[derive(Args, Debug)]
#[group(id = "settings", required = true, multiple = true, args = ["min", "max", "shares", "reservation"])]
pub(in crate::cli) struct SetArguments {
    /// The guest.
    guest: String,
    #[command(flatten)]
    fleet: FleetChoice,
    /// The smallest size, such as 64M.
    #[arg(long, value_name = "SIZE")]
    min: Option<Size>,
    /// The largest size; at most what its machine has.
    #[arg(long, value_name = "SIZE")]
    max: Option<Size>,
    /// Its part of a pool that is too small for all: low, normal, high or a number.
    #[arg(long, value_name = "SHARES")]
    shares: Option<Shares>,
    /// What it gets whenever it can use it.
    #[arg(long, value_name = "SIZE")]
    reservation: Option<Size>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TargetArguments {
    /// The guest.
    guest: String,
    /// The size that it is to have, such as 200M, or auto for the scheduler's decision.
    target: Target,
    #[command(flatten)]
    fleet: FleetChoice,
}

/// A target as a user writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target(TargetSetting);

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}, or auto")]
struct BadTarget(#[from] SizeError);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text {
            "auto" => Ok(Self(TargetSetting::Auto)),
            _ => Ok(Self(TargetSetting::Fixed(text.parse::<Size>()?.into()))),
        }
    }
}

impl Action {
    fn send(self, client: &Client, guest: &str, wait: Wait) -> Result<api::Outcome, ClientError> {
        match self {
            Self::Start => client.start(guest, wait),
            Self::Stop => client.stop(guest, wait),
            Self::Kill => client.kill(guest, wait),
            Self::Restart => client.restart(guest, wait),
        }
    }
}

pub(in crate::cli) fn act(action: Action, arguments: &ActionArguments) -> Result<ExitCode, Failure> {
    let ActionArguments { guest, fleet, wait, no_wait } = arguments;
    let wait = patience(*wait, *no_wait);
    let connection = fleet.connect()?;
    let outcome = action.send(&connection.client, guest, wait).map_err(|error| connection.failure(&error))?;
    let state = state(&outcome.guest);
    match wait {
        Wait::Seconds(seconds) if !outcome.is_reached => {
            Err(Failure::broken(format!("{state}, {seconds} s later; `aerostat explain {guest}` says why")))
        }
        Wait::Seconds(_) | Wait::No => print(&format!("{state}\n")).map(|()| ExitCode::SUCCESS),
    }
}

/// Returns a line with the state of a guest.
fn state(guest: &Guest) -> String {
    let ending = guest.ending.as_ref().filter(|_| !guest.state.is_up());
    let ending = ending.map_or(String::new(), |ending| format!(": {ending}"));
    printable(&format!("{} is {}{ending}", guest.name, guest.state.as_str()))
}

/// Parts of a second count as a second.
fn patience(wait: Span, no_wait: bool) -> Wait {
    let seconds = wait.0.as_millis().div_ceil(1000);
    if no_wait { Wait::No } else { Wait::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX)) }
}

pub(in crate::cli) fn set(arguments: &SetArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let patch = GuestPatch {
        min: arguments.min.map(Into::into),
        max: arguments.max.map(Into::into),
        shares: arguments.shares.map(SharesSetting),
        reservation: arguments.reservation.map(Into::into),
    };
    let changed = connection.client.change_guest(&arguments.guest, &patch, None);
    let changed = changed.map_err(|error| connection.failure(&error))?;
    print(&format!("{}: settings are version {}\n", arguments.guest, changed.version))?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn target(arguments: &TargetArguments) -> Result<ExitCode, Failure> {
    let connection = arguments.fleet.connect()?;
    let changed = connection.client.set_target(&arguments.guest, arguments.target.0);
    let changed = changed.map_err(|error| connection.failure(&error))?;
    print(&format!("{}: settings are version {}\n", arguments.guest, changed.version))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{Target, patience};
    use crate::control::Wait;
    use crate::control::api::{Amount, TargetSetting};

    #[test]
    fn a_target_is_a_size_or_auto() {
        assert_eq!("auto".parse(), Ok(Target(TargetSetting::Auto)));
        assert_eq!("200M".parse(), Ok(Target(TargetSetting::Fixed(Amount(200 << 20)))));
        let error = "200".parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("\"200\" is not a size") && error.ends_with(", or auto"), "{error}");
    }

    #[test]
    fn a_wait_is_whole_seconds() {
        assert_eq!(patience("1500ms".parse().unwrap(), false), Wait::Seconds(2));
        assert_eq!(patience("30s".parse().unwrap(), true), Wait::No);
    }
}
