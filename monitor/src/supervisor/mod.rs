//! The supervisor: starts guests, samples them, carries out the scheduler's decisions, and keeps
//! the accounts of a run.
//!
//! | part | what it does |
//! |---|---|
//! | `engine.rs` | [`Supervisor`], the guests that run: samples, scheduler, accounts |
//! | `manager.rs`, `roster.rs` | [`FleetManager`], the fleet that users change |
//! | `command.rs`, `mailbox.rs`, `apply.rs` | what clients ask, how it arrives, and plans |
//! | `run.rs`, `run_loop.rs` | [`run()`]: waits for events, signals and the next poll |
//! | `loop_time.rs` | how long the rounds of that loop take |
//! | `starters.rs` | threads that start guests, so that the loop never waits for a start |
//! | `guest/` | the record of one guest: registers, accounts, verdict, contact, view |
//!
//! One thread decides, and it shares no lock with another. Polls happen at a steady rate, sooner
//! while a guest waits for memory, and at once when a guest reports pressure or ends.

mod apply;
mod balloon;
mod command;
mod enforcement;
mod engine;
mod episodes;
#[cfg(test)]
mod fake;
mod guest;
mod host_meter;
mod loop_time;
mod mailbox;
mod manager;
#[cfg(test)]
mod manager_tests;
mod outcome;
mod physical;
mod poll_schedule;
mod requests;
mod roster;
mod run;
mod run_loop;
#[cfg(test)]
mod run_tests;
mod saved_fleet;
mod signals;
mod starters;
mod status;
mod swap;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::apply::{Plan, Step};
pub use self::balloon::BalloonTotals;
pub use self::command::{Answer, ApplyMode, Command, CommandError, EndMode, GuestChange, Version};
pub use self::enforcement::{EnforcementStatus, EnforcementTotals};
pub use self::engine::{Admission, Adoption, Attention, Found, Launched, PastGuest, StartError, Supervisor};
pub use self::loop_time::LoopTimes;
pub use self::mailbox::{Inbox, Mailbox, MailboxError, Reply, Request, mailbox};
pub use self::manager::FleetManager;
pub use self::outcome::{AppTotals, GuestOutcome, Outcome};
pub use self::physical::PhysicalMemory;
pub use self::requests::{DiskSpace, HostResources, RequestTotals};
pub use self::run::{Beginning, Observer, RunError, RunOptions, RunUntil, resume, run};
pub use self::saved_fleet::{SavedFleet, SavedGuest, Wanted};
pub use self::signals::StopSignals;
pub use self::starters::STARTERS;
pub use self::status::{DecisionStatus, Event, EventKind, FleetStatus, GuestState, GuestStatus, ServiceStatus};
pub use self::swap::{SwapStatus, SwapTotals};

/// Formats the time since the run began, as events and displays print it.
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:7.2} s", elapsed.as_secs_f64())
}
