//! What a client may ask of a running fleet, and what it is answered.

use aerostat_abi::units::FrameCount;

use super::apply::Plan;
use crate::fleet::Fleet;
use crate::scheduler::Shares;

/// The version of a guest's settings, or of the fleet's. Every change counts one up, so a client
/// that names the version it has read does not overwrite what another client has changed since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// A request to a running fleet. Guests are named as in the fleet file.
#[derive(Clone, Debug)]
pub enum Command {
    /// Start a guest that does not run.
    Start {
        /// The guest.
        guest: String,
        /// How long it may wait for its minimum while other guests shrink.
        patience: std::time::Duration,
    },
    /// End a guest and leave it ended.
    End {
        /// The guest.
        guest: String,
        /// How.
        how: EndMode,
    },
    /// End a guest and start it again.
    Restart {
        /// The guest.
        guest: String,
    },
    /// Change a guest's settings, all of them or none.
    Change {
        /// The guest.
        guest: String,
        /// What to change.
        change: GuestChange,
        /// The version that the client has read, if it cares.
        expected: Option<Version>,
    },
    /// Set a guest's target, or leave it to the scheduler again.
    Target {
        /// The guest.
        guest: String,
        /// The target; `None` for the scheduler's.
        target: Option<FrameCount>,
    },
    /// Change the size of the pool.
    Pool {
        /// The new size.
        pool: FrameCount,
        /// The version of the fleet that the client has read, if it cares.
        expected: Option<Version>,
    },
    /// Change the fleet so that it matches this one.
    Apply {
        /// What the fleet is to be.
        fleet: Box<Fleet>,
        /// Whether to do it.
        mode: ApplyMode,
        /// The version of the fleet that the client has read, if it cares.
        expected: Option<Version>,
    },
    /// Ask a guest where its processor is.
    Inspect {
        /// The guest.
        guest: String,
    },
    /// End all guests and the run.
    Shutdown,
    /// End the run and leave its guests to the next supervisor, which takes them over.
    HandOver,
}

/// How a guest is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMode {
    /// It is asked, and killed when it takes too long.
    Stop,
    /// Its process is killed.
    Kill,
}

/// Whether a plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// It is only returned.
    DryRun,
    /// It is carried out and returned.
    CarryOut,
}

/// New settings of a guest; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestChange {
    /// The smallest size.
    pub min: Option<FrameCount>,
    /// The largest size.
    pub max: Option<FrameCount>,
    /// Its part of a pool that is too small for all.
    pub shares: Option<Shares>,
    /// What it gets whenever it can use it.
    pub reservation: Option<FrameCount>,
}

/// The answer to a command that was carried out, or was begun: its effect shows in the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was asked is done or under way; the version of the guest's or the fleet's settings now.
    Done(Version),
    /// A guest is starting, or waits for memory: this start of it is meant.
    Starting(u64),
    /// The plan of [`Command::Apply`].
    Plan(Plan),
}

/// Why a command was refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The fleet has no such guest.
    #[error("there is no guest {0:?}; `aerostat ps` lists the guests")]
    NoSuchGuest(String),
    /// The guest's state does not allow it.
    #[error("guest {guest:?} {state}")]
    WrongState {
        /// The guest.
        guest: String,
        /// What it does, and what to do about it.
        state: &'static str,
    },
    /// The settings have changed since the client read them.
    #[error("version {expected} was expected and the version is {current}: read it again and repeat the change", expected = .expected.0, current = .current.0)]
    Conflict {
        /// What the client has read.
        expected: Version,
        /// What it is now.
        current: Version,
    },
    /// The values can't be.
    #[error("{0}")]
    Invalid(String),
}
