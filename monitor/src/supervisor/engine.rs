//! The supervisor: starts guests, samples them, carries out the scheduler's decisions, and keeps
//! the accounts of a run.
//!
//! It has one thread and no locks. [`Supervisor`] is the state machine. It is passed the current
//! moment and knows guests only by [`GuestHandle`], so tests run it against fake guests and a fake
//! clock. [`run`] is the loop around it, which waits for events, signals and the next poll.
//!
//! A *poll* reads every register page, deals with guests that use memory beyond their size, checks
//! that the pool is not overdrawn, and decides. Polls happen at a steady rate, sooner while a guest
//! waits for memory, and at once when a guest reports pressure or ends.

mod balloon;
mod episodes;
#[cfg(test)]
mod fake;
mod guest;
mod observation;
mod outcome;
mod overuse;
mod pacing;
mod physical;
mod run_loop;
mod signals;
mod status;
mod swap;
#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

pub use self::balloon::BalloonTotals;
pub use self::outcome::{GuestOutcome, Outcome};
pub use self::physical::PhysicalMemory;
pub use self::run_loop::{Observer, RunError, RunOptions, run};
pub use self::signals::StopSignals;
pub use self::status::{Event, EventKind, FleetStatus, GuestState, GuestStatus};
pub use self::swap::{SwapStatus, SwapTotals};

use self::episodes::Episodes;
use self::guest::{Guest, News};
use crate::clock::Moment;
use crate::fleet::GuestSpec;
use crate::host::{EndReason, Ending, GuestHandle};
use crate::scheduler::{AdmissionError, Decision, GuestId, MovedAccount, Policy, Scheduler};

/// A running fleet.
#[derive(Debug)]
pub struct Supervisor<G> {
    pool: FrameCount,
    began: Moment,
    scheduler: Scheduler,
    moved: MovedAccount,
    guests: Vec<Guest<G>>,
    events: Vec<Event>,
    violations: u64,
    violation_episodes: Episodes,
    peak_resident: FrameCount,
    keeps_samples: bool,
    /// Physical memory that the guests' processes use, by the latest measurement, if there is one.
    physical: Option<FrameCount>,
    peak_physical: FrameCount,
}

/// A guest's place in the pool, before it runs.
#[derive(Debug)]
pub struct Admission {
    id: GuestId,
    target: FrameCount,
}

/// Why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pool can't honour its limits.
    #[error("guest {name:?} is not admitted: {source}")]
    NotAdmitted {
        /// The guest.
        name: String,
        /// Why.
        source: AdmissionError,
    },
    /// The guest's process could not be started.
    #[error("guest {name:?} can't be started: {source:#}")]
    NotStarted {
        /// The guest.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
}

/// Whether the events that were read require a poll at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// They can wait for the next poll.
    None,
    /// A guest waits for memory, or a guest ended and released its memory.
    Needed,
}

impl<G: GuestHandle> Supervisor<G> {
    /// Creates a supervisor of `pool`, without guests; the run begins `now`.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy, now: Moment) -> Self {
        Self {
            pool,
            began: now,
            scheduler: Scheduler::new(pool, policy),
            moved: MovedAccount::default(),
            guests: Vec::new(),
            events: Vec::new(),
            violations: 0,
            violation_episodes: Episodes::default(),
            peak_resident: FrameCount::ZERO,
            keeps_samples: false,
            physical: None,
            peak_physical: FrameCount::ZERO,
        }
    }

    /// Keeps samples of the guests that are started from now on, for [`Outcome`].
    pub fn keep_samples(&mut self) {
        self.keeps_samples = true;
    }

    /// Admits a guest and starts its process by `start`, which is passed the guest's first target.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the other guests are as before.
    pub fn start(
        &mut self,
        spec: &GuestSpec,
        now: Moment,
        start: impl FnOnce(&GuestSpec, FrameCount) -> anyhow::Result<G>,
    ) -> Result<(), StartError> {
        let admission = self.admit(spec)?;
        self.launch(spec, admission, now, start)
    }

    /// Reserves a guest's minimum: no other guest is granted it, however long the guest's start
    /// takes.
    ///
    /// # Errors
    ///
    /// [`StartError::NotAdmitted`].
    pub fn admit(&mut self, spec: &GuestSpec) -> Result<Admission, StartError> {
        let admitted = self.scheduler.admit(spec.limits);
        let (id, target) = admitted.map_err(|source| StartError::NotAdmitted { name: spec.name.clone(), source })?;
        Ok(Admission { id, target })
    }

    /// Starts the process of an admitted guest by `start`, which is passed the guest's first
    /// target. Guests are launched in the order in which they were admitted.
    ///
    /// # Errors
    ///
    /// [`StartError::NotStarted`]; the other guests are as before.
    pub fn launch(
        &mut self,
        spec: &GuestSpec,
        Admission { id, target }: Admission,
        now: Moment,
        start: impl FnOnce(&GuestSpec, FrameCount) -> anyhow::Result<G>,
    ) -> Result<(), StartError> {
        let handle = start(spec, target).map_err(|source| {
            self.scheduler.remove(id);
            StartError::NotStarted { name: spec.name.clone(), source }
        })?;
        self.moved.granted(id, target);
        let mut guest = Guest::new(id, spec, handle, now);
        if self.keeps_samples {
            guest.keep_samples();
        }
        self.guests.push(guest);
        self.note(now, EventKind::Started { guest: spec.name.clone(), target });
        Ok(())
    }

    /// Reads the guests' events.
    pub fn hear(&mut self, now: Moment) -> Attention {
        let mut attention = Attention::None;
        let at = now.since(self.began);
        for place in 0..self.guests.len() {
            let news = self.guests[place].news();
            self.events.extend(self.guests[place].take_answer().map(|what| Event { at, what }));
            match news {
                News::Nothing => continue,
                News::Pressure => {}
                News::Ended(ending) => self.end(place, ending, now),
            }
            attention = Attention::Needed;
        }
        attention
    }

    /// Records how much physical memory all guests' processes use together; `None` if that can't be
    /// measured.
    pub fn measured(&mut self, physical: Option<FrameCount>) {
        self.physical = physical;
    }

    /// Polls every guest, updates the accounts, and decides.
    pub fn look(&mut self, now: Moment) {
        let at = now.since(self.began);
        for guest in self.guests.iter_mut().filter(|guest| guest.handle.is_some()) {
            self.events.extend(guest.look(now).map(|what| Event { at, what }));
            if let Some(since) = guest.new_silence() {
                let what = EventKind::Silent { guest: guest.name.clone(), since: since.since(self.began) };
                self.events.push(Event { at, what });
            }
            self.scheduler.observe(guest.id, &guest.sample());
            self.moved.observe(guest.id, guest.reading(), now);
        }
        self.check_pool(now);
        for decision in self.scheduler.decide(now) {
            self.carry_out(&decision, now);
        }
        self.guests.iter_mut().for_each(|guest| guest.follow_target(now));
        let elapsed = now.since(self.began);
        self.guests.iter_mut().for_each(|guest| guest.record(elapsed));
    }

    /// Returns whether a guest lacks memory that others are about to release, so that the next poll
    /// should come soon.
    #[must_use]
    pub fn is_guest_waiting(&self) -> bool {
        self.scheduler.is_guest_waiting()
    }

    /// Returns whether no guest runs.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.guests.iter().all(|guest| guest.handle.is_none())
    }

    /// Returns the descriptors to wait on before [`Self::hear`].
    pub fn event_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.guests.iter().filter_map(|guest| Some(guest.handle.as_ref()?.event_fd()))
    }

    /// Asks every guest where its processor is. [`Self::hear`] turns the answers into events.
    pub fn inspect(&mut self) {
        self.guests.iter_mut().for_each(Guest::inspect);
    }

    /// Asks every guest to end.
    pub fn request_stop(&mut self) {
        self.guests.iter_mut().for_each(Guest::request_stop);
    }

    /// Ends every guest that still runs.
    pub fn kill(&mut self) {
        self.guests.iter_mut().filter_map(|guest| guest.handle.as_mut()).for_each(GuestHandle::kill);
    }

    /// Gives up on guests that did not end even when they were killed.
    pub fn abandon(&mut self, now: Moment) {
        for place in 0..self.guests.len() {
            if self.guests[place].handle.is_some() {
                let reason = EndReason::Failed("its process can't be ended".into());
                self.end(place, Ending { reason, details: Vec::new() }, now);
            }
        }
    }

    /// Returns the events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the status as of the last poll.
    #[must_use]
    pub fn status(&self, now: Moment) -> FleetStatus {
        FleetStatus {
            elapsed: now.since(self.began),
            pool: self.pool,
            granted: self.sum(|guest| guest.target),
            resident: self.sum(Guest::resident),
            moved: self.moved.moved(),
            guests: self.guests.iter().map(Guest::status).collect(),
        }
    }

    /// Returns the outcome of the run; guests that still run are counted as stopped.
    #[must_use]
    pub fn into_outcome(self, now: Moment) -> Outcome {
        Outcome {
            elapsed: now.since(self.began),
            pool: self.pool,
            moved: self.moved.moved(),
            peak_resident: self.peak_resident,
            peak_physical: self.peak_physical,
            violations: self.violations,
            guests: self.guests.into_iter().map(GuestOutcome::new).collect(),
        }
    }

    fn carry_out(&mut self, decision: &Decision, now: Moment) {
        if !decision.is_change() {
            return;
        }
        // Guests are kept in the order of their admission, which is that of their numbers.
        let Ok(place) = self.guests.binary_search_by_key(&decision.guest, |guest| guest.id) else { return };
        let guest = &mut self.guests[place];
        guest.target = decision.target;
        self.moved.granted(decision.guest, decision.granted);
        let Decision { from, target: to, reason, .. } = *decision;
        let guest = guest.name.clone();
        self.note(now, EventKind::Target { guest, from, to, reason });
    }

    /// Counts a poll at which more memory was granted, resident or physically used than the pool
    /// has. A process uses more than its page tables map, so physical memory counts too where it is
    /// measured.
    fn check_pool(&mut self, now: Moment) {
        let granted = self.sum(|guest| guest.target);
        let resident = self.sum(Guest::resident);
        let charged = self.sum(Guest::charged);
        let physical = self.physical.unwrap_or(charged);
        self.peak_resident = self.peak_resident.max(resident);
        self.peak_physical = self.peak_physical.max(physical);
        let taken = charged.max(physical);
        let bound = self.pool.saturating_add(self.sum(Guest::overhead));
        let is_overdrawn = granted > self.pool || taken > bound;
        self.violations += u64::from(is_overdrawn);
        if let Some(episodes) = self.violation_episodes.observe(is_overdrawn, now) {
            let pool = self.pool;
            self.note(now, EventKind::Violation { granted, resident: taken, pool, episodes });
        }
    }

    fn end(&mut self, place: usize, ending: Ending, now: Moment) {
        let guest = &mut self.guests[place];
        let last = guest.end(ending.clone(), now);
        let at = now.since(self.began);
        self.events.extend(last.into_iter().map(|what| Event { at, what }));
        self.scheduler.remove(guest.id);
        self.moved.remove(guest.id);
        let guest = guest.name.clone();
        self.note(now, EventKind::Ended { guest, ending });
    }

    fn note(&mut self, now: Moment, what: EventKind) {
        self.events.push(Event { at: now.since(self.began), what });
    }

    fn sum(&self, count: impl Fn(&Guest<G>) -> FrameCount) -> FrameCount {
        self.guests.iter().map(count).fold(FrameCount::ZERO, FrameCount::saturating_add)
    }
}

/// Formats the time since the run began, as events and displays print it.
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:7.2} s", elapsed.as_secs_f64())
}
