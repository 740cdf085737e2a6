//! Running a fleet from its start to its end: what a caller passes in and gets back.

use std::io;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::engine::{Found, StartError};
use super::mailbox::Inbox;
use super::outcome::Outcome;
use super::physical::PhysicalMemory;
use super::run_loop::RunLoop;
use super::saved_fleet::SavedFleet;
use super::status::{Event, FleetStatus};
use crate::fleet::{Fleet, GuestSpec};
use crate::host::GuestHandle;
use crate::scheduler::Policy;

/// When a run is over by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunUntil {
    /// When no guest runs, and none is to start again.
    #[default]
    GuestsEnd,
    /// Never: guests may be started later.
    Shutdown,
}

/// The options of a run.
#[derive(Debug)]
pub struct RunOptions {
    /// When it is over by itself.
    pub until: RunUntil,
    /// Where the commands of clients come from.
    pub inbox: Option<Inbox>,
    /// How long the run may take, from its begin; then the guests that still run are stopped.
    /// `None` if they run until they end.
    pub limit: Option<Duration>,
    /// How memory follows demand.
    pub policy: Policy,
    /// How long guests may take to end when they are asked, and again when they are killed: a busy
    /// host needs some time to remove machines.
    pub stop_patience: Duration,
    /// Whether the outcome has samples of the guests' sizes. A sample takes 48 bytes, and there are
    /// ten a second.
    pub keeps_samples: bool,
    /// How the physical memory of all guests together is measured.
    pub physical: PhysicalMemory,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            until: RunUntil::default(),
            inbox: None,
            limit: None,
            policy: Policy::default(),
            stop_patience: Duration::from_secs(10),
            keeps_samples: false,
            physical: PhysicalMemory::AsReported,
        }
    }
}

/// What is told of a run while it goes on. Called on the supervisor's thread, so it must not block.
pub trait Observer {
    /// Learns that all guests of the fleet have started.
    fn on_ready(&mut self) {}

    /// Receives the fleet as the next supervisor needs it, whenever that has changed. `then` is to
    /// be called once it is safe: it answers the clients that have changed it.
    fn on_change(&mut self, _saved: SavedFleet, then: Box<dyn FnOnce() + Send>) {
        then();
    }

    /// Receives an event.
    fn on_event(&mut self, event: &Event);

    /// Receives the status after a poll. Called at every poll, so an observer limits its own rate.
    fn on_poll(&mut self, status: &FleetStatus);
}

/// Why a run failed. Nothing runs any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A guest could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Waiting for events failed.
    #[error("can't wait for the guests: {0}")]
    Wait(#[from] io::Error),
}

/// A fleet of which an earlier supervisor has left guests.
#[derive(Debug)]
pub struct Beginning<'a, G> {
    /// The fleet.
    pub fleet: &'a Fleet,
    /// What was left of it.
    pub found: Vec<Found<G>>,
    /// What its users had changed, if that is known.
    pub saved: Option<SavedFleet>,
}

/// Starts the fleet by `start`, runs it until it is over, the limit is reached or a signal comes,
/// and ends it.
///
/// `start` is called by several threads at the same time, and is passed a guest and its first
/// target. A start that hangs is left to its thread.
///
/// # Errors
///
/// [`RunError`]; every guest that was started has been ended.
pub fn run<G, S>(fleet: &Fleet, options: RunOptions, start: S, observer: &mut dyn Observer) -> Result<Outcome, RunError>
where
    G: GuestHandle + Send + 'static,
    S: Fn(&GuestSpec, FrameCount) -> anyhow::Result<G> + Send + Sync + 'static,
{
    let mut run_loop = RunLoop::new(fleet, options, start, observer)?;
    let ran = run_loop.start_and_serve();
    run_loop.end(ran)
}

/// Runs a fleet of which an earlier supervisor has left guests: takes them in, starts the others as
/// the pool has room for them, and goes on as [`run`] does.
///
/// # Errors
///
/// [`RunError`]; every guest that was started or taken in has been ended.
pub fn resume<G, S>(
    beginning: Beginning<'_, G>,
    options: RunOptions,
    start: S,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError>
where
    G: GuestHandle + Send + 'static,
    S: Fn(&GuestSpec, FrameCount) -> anyhow::Result<G> + Send + Sync + 'static,
{
    let Beginning { fleet, found, saved } = beginning;
    let mut run_loop = RunLoop::new(fleet, options, start, observer)?;
    if let Some(saved) = saved {
        run_loop.restore(&saved);
    }
    let ran = run_loop.resume_and_serve(found);
    run_loop.end(ran)
}
