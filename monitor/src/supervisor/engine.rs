//! The state machine: the guests, the scheduler, and the accounts of a run.
//!
//! A *poll* reads what every guest publishes, deals with guests that use memory beyond their size,
//! checks that the pool is not overdrawn, and decides. The current moment is passed in, and a guest
//! is known only by its [`GuestHandle`], so tests run this against fake guests and a fake clock.

mod adoption;
mod start;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use aerostat_abi::units::FrameCount;

pub use self::adoption::{Adoption, Found, PastGuest};
pub use self::start::{Admission, Launched, StartError};
use super::command::Version;
use super::episodes::Episodes;
use super::guest::{Guest, Pace, Received};
use super::loop_time::LoopTimes;
use super::outcome::Outcome;
use super::requests::HostResources;
use super::status::{Event, EventKind, FleetStatus, GuestStatus};
use crate::clock::Moment;
use crate::host::{EndReason, Ending, GuestHandle};
use crate::scheduler::{
    AdmissionError, Decision, GuestId, HostMemory, IdleTax, IgnoredTarget, Limits, MovedAccount, Policy, Scheduler,
    Subscription,
};

/// Memory that may move between two polls of a fleet at rest.
const REST: FrameCount = FrameCount::from_mib(1);

/// A running fleet.
#[derive(Debug)]
pub struct Supervisor<G> {
    pub(super) pool: FrameCount,
    /// What guests may hold: the pool, or what they held when it was made smaller, as far as they
    /// still do.
    bound: FrameCount,
    pub(super) began: Moment,
    pub(super) scheduler: Scheduler,
    moved: MovedAccount,
    /// Guests that were admitted and are not started yet, with their first targets.
    starting: BTreeMap<GuestId, FrameCount>,
    /// In the order of admission.
    pub(super) guests: Vec<Guest<G>>,
    pub(super) events: Vec<Event>,
    /// Guests that have ended, and how; taken by the caller.
    ended: Vec<(GuestId, Ending)>,
    /// By how much guests grew and shrank until the last poll, in size and in resident memory.
    moved_at_last_poll: FrameCount,
    /// Whether that poll changed a target.
    has_changed_targets: bool,
    violations: u64,
    violation_episodes: Episodes,
    peak_resident: FrameCount,
    keeps_samples: bool,
    /// Physical memory that the guests' processes use, by the latest measurement, if there is one.
    physical: Option<FrameCount>,
    peak_physical: FrameCount,
    /// The rounds of the loop around this, by the caller's measurement.
    loop_times: LoopTimes,
    /// The host's resources besides the pool, as guests are told of them.
    pub(super) host: HostResources,
}

/// Whether the events that were read require a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// They can wait for the next poll.
    None,
    /// A guest uses its memory otherwise than before: a fleet that was at rest is polled at once,
    /// and others when it is time.
    Usual,
    /// The fleet is to be polled at once: a guest waits for memory, or a guest ended and released
    /// its memory.
    Needed,
}

impl<G: GuestHandle> Supervisor<G> {
    /// Creates a supervisor of `pool`, without guests; the run begins `now`.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy, now: Moment) -> Self {
        Self {
            pool,
            bound: pool,
            began: now,
            scheduler: Scheduler::new(pool, policy),
            moved: MovedAccount::default(),
            starting: BTreeMap::new(),
            guests: Vec::new(),
            events: Vec::new(),
            ended: Vec::new(),
            moved_at_last_poll: FrameCount::ZERO,
            has_changed_targets: false,
            violations: 0,
            violation_episodes: Episodes::default(),
            peak_resident: FrameCount::ZERO,
            keeps_samples: false,
            physical: None,
            peak_physical: FrameCount::ZERO,
            loop_times: LoopTimes::default(),
            host: HostResources::default(),
        }
    }

    /// Keeps samples of the guests that are started from now on, for [`Outcome`].
    pub fn keep_samples(&mut self) {
        self.keeps_samples = true;
    }

    /// Returns the size of the pool.
    #[must_use]
    pub fn pool(&self) -> FrameCount {
        self.pool
    }

    /// Returns the tax on idle memory.
    #[must_use]
    pub fn idle_tax(&self) -> IdleTax {
        self.scheduler.idle_tax()
    }

    /// Checks whether a guest with these limits would be admitted now.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where it would not.
    pub fn can_admit(&self, limits: Limits, subscription: Subscription) -> Result<(), AdmissionError> {
        self.scheduler.can_admit(limits, subscription)
    }

    /// Releases what a guest is guaranteed, since it is to end: others may be guaranteed it. What
    /// it holds stays its own until it has ended.
    pub fn release_guarantee(&mut self, id: GuestId) {
        if let Some(guest) = self.guest(id) {
            let max = guest.machine();
            let nothing = Subscription { reservation: FrameCount::ZERO, ..Subscription::default() };
            // Lower guarantees are never refused.
            let _ = self.scheduler.change(id, Limits { min: FrameCount::ZERO, max }, nothing);
        }
    }

    /// Changes what a guest may have, in the pool and in its record.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where the pool can't honour the new limits; nothing is changed.
    pub fn change(&mut self, id: GuestId, limits: Limits, subscription: Subscription) -> Result<(), AdmissionError> {
        self.scheduler.change(id, limits, subscription)?;
        if let Some(guest) = self.guest_mut(id) {
            guest.change(limits, subscription);
        }
        Ok(())
    }

    /// Changes the size of the pool. What guests hold beyond a smaller pool is taken from them by
    /// the following decisions.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where the pool could not honour what guests are guaranteed; nothing is
    /// changed.
    pub fn resize(&mut self, pool: FrameCount) -> Result<(), AdmissionError> {
        self.scheduler.resize(pool)?;
        self.pool = pool;
        Ok(())
    }

    /// Sets a guest's target, or leaves it to the scheduler.
    pub fn pin(&mut self, id: GuestId, target: Option<FrameCount>) {
        self.scheduler.pin(id, target);
    }

    /// Sets the tax on idle memory.
    pub fn set_idle_tax(&mut self, tax: IdleTax) {
        self.scheduler.set_idle_tax(tax);
    }

    /// Sets how much memory guests wait for that are not admitted yet.
    pub fn set_awaited(&mut self, awaited: FrameCount) {
        self.scheduler.set_awaited(awaited);
    }

    /// Sets what follows when a guest goes on to ignore its target.
    pub fn set_ignored_target(&mut self, id: GuestId, rule: IgnoredTarget) {
        if let Some(guest) = self.guest_mut(id) {
            guest.set_ignored_target(rule);
        }
    }

    /// Removes the record of a guest that has ended.
    pub fn retire(&mut self, id: GuestId) {
        self.guests.retain(|guest| guest.id != id || guest.is_running());
    }

    /// Returns all memory of a running guest's machine.
    #[must_use]
    pub fn machine_of(&self, id: GuestId) -> Option<FrameCount> {
        self.guest(id).filter(|guest| guest.is_running()).map(Guest::machine)
    }

    /// Asks one guest to end.
    pub fn request_stop_of(&mut self, id: GuestId) {
        if let Some(guest) = self.guest_mut(id) {
            guest.request_stop();
        }
    }

    /// Ends one guest's process.
    pub fn kill_guest(&mut self, id: GuestId) {
        if let Some(guest) = self.guest_mut(id) {
            guest.kill();
        }
    }

    /// Asks one guest where its processor is; returns whether it can be asked.
    pub fn inspect_guest(&mut self, id: GuestId) -> bool {
        let Some(guest) = self.guest_mut(id).filter(|guest| guest.is_running()) else { return false };
        guest.inspect();
        true
    }

    /// Returns the guests that have ended since the last call, and how.
    pub fn take_ended(&mut self) -> Vec<(GuestId, Ending)> {
        std::mem::take(&mut self.ended)
    }

    /// Reports an event that the caller has caused or noticed.
    pub fn note_event(&mut self, what: EventKind, now: Moment) {
        self.note(now, what);
    }

    /// Reads one guest's events.
    pub fn read_events_of(&mut self, id: GuestId, now: Moment) -> Attention {
        match self.guests.binary_search_by_key(&id, |guest| guest.id) {
            Ok(place) => self.read_events_at(place, now),
            Err(_) => Attention::None,
        }
    }

    /// Reads all guests' events.
    pub fn read_events(&mut self, now: Moment) -> Attention {
        let mut attention = Attention::None;
        for place in 0..self.guests.len() {
            attention = attention.max(self.read_events_at(place, now));
        }
        attention
    }

    fn read_events_at(&mut self, place: usize, now: Moment) -> Attention {
        let at = now.since(self.began);
        let received = self.guests[place].receive();
        self.events.extend(self.guests[place].take_reports().into_iter().map(|what| Event { at, what }));
        match received {
            Received::Nothing => return Attention::None,
            Received::UseChanged => return Attention::Usual,
            Received::Pressure => {}
            Received::Ended(ending) => self.end(place, ending, now),
        }
        Attention::Needed
    }

    /// Records how much physical memory all guests' processes use together; `None` if that can't be
    /// measured.
    pub fn record_physical(&mut self, physical: Option<FrameCount>) {
        self.physical = physical;
    }

    /// Records how long the rounds of the caller's loop took so far.
    pub fn record_loop(&mut self, times: LoopTimes) {
        self.loop_times = times;
    }

    /// Records a sample of the host's memory.
    pub fn record_host(&mut self, host: HostMemory) {
        self.scheduler.observe_host(Some(host));
    }

    /// Polls every guest, updates the accounts, and decides.
    pub fn poll(&mut self, now: Moment) {
        let at = now.since(self.began);
        self.moved_at_last_poll = FrameCount::ZERO;
        for guest in self.guests.iter_mut().filter(|guest| guest.is_running()) {
            let before = guest.footprint();
            self.events.extend(guest.poll(now).into_iter().map(|what| Event { at, what }));
            let moved = guest.footprint().iter().zip(before).map(|(now, before)| now.0.abs_diff(before.0)).sum();
            self.moved_at_last_poll = self.moved_at_last_poll.saturating_add(FrameCount(moved));
            if let Some(since) = guest.new_silence() {
                let what = EventKind::Silent { guest: guest.name.clone(), since: since.since(self.began) };
                self.events.push(Event { at, what });
            }
            self.scheduler.observe(guest.id, &guest.sample());
            self.moved.observe(guest.id, guest.reading(), now);
        }
        self.take_requests(now);
        self.check_pool(now);
        let decisions = self.scheduler.decide(now);
        self.has_changed_targets = decisions.iter().any(Decision::is_change);
        for decision in decisions {
            self.carry_out(&decision, now);
        }
        for guest in &mut self.guests {
            let told = guest.enforce(self.scheduler.enforced(guest.id), now);
            self.events.extend(told.map(|what| Event { at, what }));
        }
        // Before the targets are sent, as a guest may follow one at once.
        let free = self.scheduler.free();
        self.guests.iter_mut().for_each(|guest| guest.limit_process(free));
        let pace = if self.scheduler.state().is_emergency() { Pace::Emergency } else { Pace::Limited };
        self.guests.iter_mut().for_each(|guest| guest.follow_target(pace, now));
        self.update_guests(now);
        self.guests.iter_mut().for_each(|guest| guest.record(at));
    }

    /// Returns whether a guest lacks memory that others are about to release, so that the next poll
    /// should come soon.
    #[must_use]
    pub fn is_memory_coming(&self) -> bool {
        self.scheduler.is_memory_coming()
    }

    /// Returns whether hardly any memory moved until the last poll, that changed no target, and no
    /// guest waits for memory.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let is_waiting = self.guests.iter().any(|guest| guest.wanted() > FrameCount::ZERO);
        self.moved_at_last_poll < REST && !self.has_changed_targets && !is_waiting
    }

    /// Returns whether no guest runs.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.guests.iter().any(Guest::is_running)
    }

    /// Returns the descriptor to wait on before [`Self::read_events_of`] a running guest.
    #[must_use]
    pub fn event_fd(&self, id: GuestId) -> Option<BorrowedFd<'_>> {
        self.guest(id)?.event_fd()
    }

    /// Asks every guest where its processor is. [`Self::read_events`] turns the answers into
    /// events.
    pub fn inspect(&mut self) {
        self.guests.iter_mut().for_each(Guest::inspect);
    }

    /// Asks every guest to end.
    pub fn request_stop(&mut self) {
        self.guests.iter_mut().for_each(Guest::request_stop);
    }

    /// Ends every guest that still runs.
    pub fn kill(&mut self) {
        self.guests.iter_mut().for_each(Guest::kill);
    }

    /// Gives up on guests that did not end even when they were killed.
    pub fn abandon(&mut self, now: Moment) {
        for place in 0..self.guests.len() {
            if self.guests[place].is_running() {
                let reason = EndReason::Failed("its process can't be ended".into());
                self.end(place, Ending { reason, details: Vec::new() }, now);
            }
        }
    }

    /// Leaves every guest that runs to the next supervisor.
    pub fn leave(&mut self, now: Moment) {
        let at = now.since(self.began);
        for guest in self.guests.iter_mut().filter(|guest| guest.is_running()) {
            let target = guest.target;
            guest.leave();
            self.events.push(Event { at, what: EventKind::Left { guest: guest.name.clone(), target } });
        }
    }

    /// Returns the events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Returns the status as of the last poll.
    #[must_use]
    pub fn status(&self, now: Moment) -> FleetStatus {
        FleetStatus { guests: self.guests.iter().map(|guest| self.named_status(guest)).collect(), ..self.totals(now) }
    }

    /// Returns a guest's status as of the last poll; `None` if there is no record of it.
    #[must_use]
    pub fn status_of(&self, id: GuestId) -> Option<GuestStatus> {
        self.guest(id).map(|guest| self.named_status(guest))
    }

    fn named_status(&self, guest: &Guest<G>) -> GuestStatus {
        guest.status(self.began, |id| self.name_of(id))
    }

    /// Returns the status of the fleet without its guests.
    #[must_use]
    pub fn totals(&self, now: Moment) -> FleetStatus {
        FleetStatus {
            elapsed: now.since(self.began),
            pool: self.pool,
            granted: self.sum(|guest| guest.target),
            resident: self.sum(Guest::resident),
            moved: self.moved.moved(),
            free: self.scheduler.free(),
            state: self.scheduler.state(),
            guaranteed: self.scheduler.guaranteed(),
            physical: self.physical,
            idle_tax: self.scheduler.idle_tax(),
            violations: self.violations,
            loop_times: self.loop_times,
            version: Version::default(),
            guests: Vec::new(),
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
            loop_times: self.loop_times,
            guests: self.guests.into_iter().map(|guest| guest.into_outcome(now)).collect(),
        }
    }

    fn carry_out(&mut self, decision: &Decision, now: Moment) {
        let elapsed = now.since(self.began);
        let Some(guest) = self.guest_mut(decision.guest) else { return };
        guest.decided(decision, elapsed);
        if !decision.is_change() {
            return;
        }
        self.moved.granted(decision.guest, decision.granted);
        let Decision { from, target: to, reason, inputs, .. } = *decision;
        let guest = self.name_of(decision.guest).unwrap_or_default();
        let in_need = decision.other_in_need().and_then(|id| self.name_of(id));
        self.note(now, EventKind::Target { guest, from, to, reason, inputs, in_need });
    }

    /// Returns the name of a guest whose process was started.
    fn name_of(&self, id: GuestId) -> Option<String> {
        Some(self.guest(id)?.name.clone())
    }

    fn guest(&self, id: GuestId) -> Option<&Guest<G>> {
        let place = self.guests.binary_search_by_key(&id, |guest| guest.id).ok()?;
        Some(&self.guests[place])
    }

    fn guest_mut(&mut self, id: GuestId) -> Option<&mut Guest<G>> {
        let place = self.guests.binary_search_by_key(&id, |guest| guest.id).ok()?;
        Some(&mut self.guests[place])
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
        // A pool that was made smaller is reached later, and what is above it only falls.
        self.bound = self.pool.max(self.bound.min(self.scheduler.held()));
        let bound = self.bound.saturating_add(self.sum(Guest::overhead)).saturating_add(self.overhead_of_starts());
        let is_overdrawn = granted > self.bound || taken > bound;
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
        self.ended.push((guest.id, ending.clone()));
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
