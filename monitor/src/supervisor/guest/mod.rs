//! The supervisor's record of one guest, from its start until after its end.
//!
//! | part | what it holds |
//! |---|---|
//! | `accepted` | the bounds of what a guest's process may claim |
//! | `accounts` | what the guest uses, by its last poll |
//! | `register`, `pacing` | the targets that were sent, and how fast they may fall |
//! | `verdict`, `overuse` | why the guest has to end |
//! | `enforcement` | what is done about a guest that ignores its target |
//! | `contact` | whether it is silent, and where its processor is |
//! | `requests` | what the guest asks for and is told of the host |
//! | `view` | what observers see of it |

mod accepted;
mod accounts;
mod contact;
mod enforcement;
mod overuse;
mod pacing;
mod register;
mod requests;
mod verdict;
mod view;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;

use self::accepted::{Accepted, Bounds};
use self::accounts::Accounts;
use self::contact::Contact;
use self::enforcement::{Enforcer, Seen};
use self::register::TargetRegister;
use self::requests::Exchange;
use self::verdict::{Use, Verdict};
use super::requests::Assigned;
use super::status::{EventKind, GuestState};
use crate::clock::Moment;
use crate::fleet::{GuestSpec, OveruseRule};
use crate::host::{Confinement, EndReason, Ending, GuestEvent, GuestHandle, News, Reports};
use crate::scheduler::{
    Acknowledgement, Decision, Enforced, GuestId, GuestSample, Hints, IgnoredTarget, Limits, Reading, Subscription,
    Usage,
};
use crate::vmm::DISAGREEING_REPORTS;

pub(super) use self::accounts::overhead;
pub(super) use self::pacing::Pace;

/// Memory that a VMM process uses for itself, and the error of its measurement of its guest's
/// memory in either direction.
const OWN_MEMORY: FrameCount = FrameCount::from_mib(2);
/// What a confined guest may touch for the first time before its pager has made room for it. The
/// kernel must not kill it for that.
const PAGER_LAG: FrameCount = FrameCount::from_mib(96);
/// The most events of one guest that are handled at a time, so that a noisy guest does not keep the
/// supervisor from the others.
const EVENTS_AT_A_TIME: usize = 64;

/// The supervisor's record of one guest.
#[derive(Debug)]
pub(super) struct Guest<G> {
    pub(super) id: GuestId,
    pub(super) name: String,
    limits: Limits,
    subscription: Subscription,
    /// All memory of its machine.
    machine: FrameCount,
    life: Life<G>,
    /// What the scheduler has decided.
    pub(super) target: FrameCount,
    register: TargetRegister,
    accounts: Accounts,
    /// Memory of its process that is not the guest's.
    own_memory: FrameCount,
    state: GuestState,
    verdict: Verdict,
    contact: Contact,
    enforcer: Enforcer,
    pub(super) exchange: Exchange,
    /// What of the host's other resources is its own.
    pub(super) assigned: Assigned,
    /// What is done about it where it ignores its target.
    enforced: Option<Enforced>,
    /// The scheduler's latest decision.
    decision: Option<Decision>,
    /// The latest that changed the target, and when, from the begin of the run.
    last_change: Option<(Duration, Decision)>,
}

/// Whether a guest runs.
#[derive(Debug)]
enum Life<G> {
    Running(G),
    Ended(Ending),
}

/// How a guest was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Its first target.
    pub(super) target: FrameCount,
    /// The moment before its process was started.
    pub(super) spawned: Moment,
    /// The epoch of its first target.
    pub(super) epoch: Epoch,
    /// Its size, where it runs already.
    pub(super) size: Option<FrameCount>,
}

impl Start {
    /// The start of a guest whose process is new.
    pub(super) const fn new(target: FrameCount, spawned: Moment) -> Self {
        Self { target, spawned, epoch: Epoch::FIRST, size: None }
    }
}

/// What a guest's events require.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing.
    Nothing,
    /// The guest uses its memory otherwise than before.
    UseChanged,
    /// A thread in the guest waits for memory, or the guest has filed a request.
    Pressure,
    /// The guest ended.
    Ended(Ending),
}

impl<G: GuestHandle> Guest<G> {
    /// Creates the record of a guest whose process was started.
    pub(super) fn new(id: GuestId, spec: &GuestSpec, handle: G, start: Start) -> Self {
        Self::with_life(id, spec, Life::Running(handle), start)
    }

    fn with_life(id: GuestId, spec: &GuestSpec, life: Life<G>, start: Start) -> Self {
        Self {
            id,
            name: spec.name.clone(),
            limits: spec.limits,
            subscription: spec.subscription,
            machine: spec.limits.max,
            life,
            target: start.target,
            register: TargetRegister::new(start, spec.balloon_rate),
            accounts: Accounts::new(start),
            own_memory: FrameCount::ZERO,
            state: GuestState::Starting,
            verdict: Verdict::new(spec.overuse),
            contact: Contact::default(),
            enforcer: Enforcer::new(spec),
            exchange: Exchange::default(),
            assigned: Assigned::of(spec),
            enforced: None,
            decision: None,
            last_change: None,
        }
    }

    /// Records what the scheduler was told to keep to from now on.
    pub(super) fn change(&mut self, limits: Limits, subscription: Subscription) {
        self.limits = limits;
        self.subscription = subscription;
    }

    /// Returns all memory of the guest's machine.
    pub(super) fn machine(&self) -> FrameCount {
        self.machine
    }

    /// Records a decision of the scheduler.
    pub(super) fn decided(&mut self, decision: &Decision, elapsed: Duration) {
        self.target = decision.target;
        self.decision = Some(*decision);
        if decision.is_change() {
            self.last_change = Some((elapsed, *decision));
        }
    }

    /// Returns what the guest uses its memory for, by its own report.
    fn usage(&self) -> Option<Usage> {
        match self.accounts.reports {
            // Its machine bounds what it says, not a max that was lowered since.
            Reports::OfGuest => {
                let limits = Limits { min: self.limits.min, max: self.machine };
                Usage::from_statistics(&self.accounts.statistics, limits)
            }
            Reports::Derived(usage) => Some(usage),
            Reports::Awaited | Reports::Never => None,
        }
    }

    /// Creates the record of a guest that ended before this supervisor began.
    pub(super) fn ended(id: GuestId, spec: &GuestSpec, ending: Ending, now: Moment) -> Self {
        let record = Self::with_life(id, spec, Life::Ended(ending), Start::new(FrameCount::ZERO, now));
        Self { state: GuestState::Ended, ..record }
    }

    /// Sets the memory of the guest's machine, where the limits were changed since its start.
    pub(super) fn set_machine(&mut self, machine: FrameCount) {
        self.machine = machine;
    }

    /// Keeps samples from now on.
    pub(super) fn keep_samples(&mut self) {
        self.accounts.keep_samples();
    }

    /// Returns its size and its resident memory by the last poll.
    pub(super) fn footprint(&self) -> [FrameCount; 2] {
        [self.accounts.size(), self.accounts.resident]
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.life, Life::Running(_))
    }

    /// Returns the descriptor to wait on before [`Self::receive`].
    pub(super) fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.life.handle().map(GuestHandle::event_fd)
    }

    /// Reads the events of the guest's process.
    pub(super) fn receive(&mut self) -> Received {
        let mut received = Received::Nothing;
        let Life::Running(handle) = &mut self.life else { return received };
        for _ in 0..EVENTS_AT_A_TIME {
            match handle.next_event() {
                Some(GuestEvent::Ended(ending)) => return Received::Ended(self.verdict.of_ending(ending)),
                Some(GuestEvent::Pressure | GuestEvent::Requested) => received = Received::Pressure,
                Some(GuestEvent::UseChanged) if received == Received::Nothing => received = Received::UseChanged,
                Some(GuestEvent::UseChanged) => {}
                Some(GuestEvent::Inspected(lines)) => self.contact.receive(lines),
                Some(GuestEvent::Problem(what)) => self.contact.add_problem(what),
                None => break,
            }
        }
        received
    }

    /// Reads what is published of the guest and judges it; a guest that ended keeps what was read
    /// last. Returns the events to report.
    pub(super) fn poll(&mut self, now: Moment) -> Vec<EventKind> {
        if !self.read(now) {
            return Vec::new();
        }
        [self.judge_use(now), self.compare(now)].into_iter().flatten().collect()
    }

    /// Reads what is published; returns whether the guest runs.
    fn read(&mut self, now: Moment) -> bool {
        let Life::Running(handle) = &self.life else { return false };
        let bounds = Bounds {
            machine: self.machine,
            allowed: match handle.confinement() {
                // The acknowledgement that is read now counts only afterwards: the sizes may result
                // from targets before it.
                Confinement::ByHost => self.accounts.size().max(self.register.largest()),
                Confinement::ByGuest => self.machine,
            },
            has_size: self.accounts.published_size().is_some(),
            spawned: self.accounts.spawned(),
            now,
        };
        let Accepted { observation, contradiction } = Accepted::new(handle.observe(), &bounds);
        self.accounts.update(&observation, now, || handle.measure_resident());
        self.own_memory = handle.own_memory();
        // While the guest follows its target, no time counts.
        let is_larger = self.register.largest().max(self.accounts.size()) > self.target;
        let waited = if is_larger { handle.waited_for_processor() } else { None };
        self.enforcer.observe(&observation, waited, now);
        self.exchange.read(observation.requests, now);
        let is_sound = observation.acknowledged.is_none_or(|epoch| self.register.acknowledge(epoch).is_ok());
        self.state = if self.enforcer.is_paused() {
            GuestState::Paused
        } else if Contact::is_silent(self.accounts.last_call(), now) {
            GuestState::Silent
        } else if observation.main.is_none() && (observation.running.is_none() || observation.size.is_none()) {
            GuestState::Starting
        } else {
            GuestState::of_sizes(self.accounts.size(), self.target, self.wanted())
        };
        if let Some(contradiction) = contradiction {
            self.condemn(EndReason::Failed(format!("its process reported {contradiction}")));
        }
        if !is_sound {
            self.condemn(EndReason::Failed("its process acknowledged a target that was never set".into()));
        }
        true
    }

    /// Applies the fleet file's rule to a guest that uses memory beyond its size. Until its process
    /// has published a size, that is the size with which it was started. A guest that the host does
    /// not confine may have all of its machine.
    fn judge_use(&mut self, now: Moment) -> Option<EventKind> {
        if self.life.handle().is_some_and(|handle| handle.confinement() == Confinement::ByGuest) {
            return None;
        }
        let size = self.accounts.published_size().unwrap_or_else(|| self.register.largest());
        let finding = self.verdict.judge_use(Use { size, resident: self.accounts.resident }, now)?;
        let rule = self.verdict.rule;
        match (rule, &mut self.life) {
            (OveruseRule::Kill, _) => self.condemn(EndReason::BeyondSize(finding.excess)),
            (OveruseRule::Cap, Life::Running(handle)) if finding.is_new_sample => handle.reclaim_ballooned(),
            (OveruseRule::Cap | OveruseRule::Warn, _) => {}
        }
        let (guest, excess) = (self.name.clone(), finding.excess);
        finding.told.map(|episodes| EventKind::Overuse { guest, excess, rule, episodes })
    }

    /// Detects a guest that keeps reporting a wrong balloon size. The report is only a hint, so
    /// nothing else follows.
    fn compare(&mut self, now: Moment) -> Option<EventKind> {
        let disagrees = self.accounts.counters.disagreeing_reports >= DISAGREEING_REPORTS;
        let episodes = self.verdict.disagreements.observe(disagrees, now)?;
        let reported = FrameCount::from_bytes_floor(self.accounts.statistics.balloon_bytes);
        Some(EventKind::Disagreement { guest: self.name.clone(), reported, balloon: self.accounts.balloon, episodes })
    }

    /// Ends the guest for the first of these reasons; [`Self::receive`] reports when it has ended.
    fn condemn(&mut self, reason: EndReason) {
        let (size, resident, target) = (self.accounts.size(), self.accounts.resident, self.target);
        let is_new = self.verdict.condemn(reason, || format!("size {size}, target {target}, resident {resident}"));
        if is_new {
            self.kill();
        }
    }

    /// Returns since when the guest is silent, once in each silence. Also asks the guest where its
    /// processor is.
    pub(super) fn new_silence(&mut self) -> Option<Moment> {
        if !self.contact.begins_silence(self.state == GuestState::Silent) {
            return None;
        }
        self.inspect();
        Some(self.accounts.last_call())
    }

    /// Asks where the guest's processor is; [`Self::take_reports`] returns the answer later.
    pub(super) fn inspect(&mut self) {
        if let Life::Running(handle) = &mut self.life {
            self.contact.ask();
            handle.inspect();
        }
    }

    /// Returns what the guest's process has reported and was not taken: problems, and where the
    /// guest's processor was.
    pub(super) fn take_reports(&mut self) -> Vec<EventKind> {
        let guest = &self.name;
        let problems = self.contact.take_problems().into_iter();
        let problems = problems.map(|what| EventKind::Problem { guest: guest.clone(), what });
        let mut reports: Vec<_> = problems.collect();
        let lines = self.contact.take_answer().into_iter();
        reports.extend(lines.map(|line| EventKind::Inspected { guest: guest.clone(), line }));
        reports
    }

    /// Moves the register to the target: at once, or as fast as the host's rate allows.
    pub(super) fn follow_target(&mut self, pace: Pace, now: Moment) {
        let Life::Running(handle) = &mut self.life else { return };
        if let Some((target, epoch)) = self.register.follow(self.target, self.accounts.published_size(), pace, now) {
            handle.send_target(target, epoch);
        }
    }

    /// Limits the guest's process to the targets that it may act on, or to the limit of its
    /// resident memory while it is confined. What a guest may touch beyond its size, by the rule of
    /// its fleet file, is memory that the pool has `free`.
    pub(super) fn limit_process(&mut self, free: FrameCount) {
        let size = self.target.max(self.register.largest()).max(self.accounts.size());
        let granted = match self.enforcer.resident_limit() {
            Some(limit) => limit.max(self.target).saturating_add(PAGER_LAG).min(size),
            None => size,
        };
        let size = match self.verdict.rule {
            OveruseRule::Kill => granted,
            OveruseRule::Cap | OveruseRule::Warn => granted.max(self.accounts.resident).saturating_add(free),
        };
        if let Life::Running(handle) = &mut self.life {
            handle.limit_process(size);
        }
    }

    /// Does what the scheduler says about a guest that ignores its target. Returns what is to be
    /// reported.
    pub(super) fn enforce(&mut self, enforced: Option<Enforced>, now: Moment) -> Option<EventKind> {
        let Life::Running(handle) = &mut self.life else { return None };
        if self.verdict.is_stopping() {
            return None;
        }
        let page_tables = self.accounts.charged().saturating_sub(self.accounts.resident);
        let overhead = page_tables.saturating_add(OWN_MEMORY);
        let seen = Seen { target: self.target, resident: self.accounts.resident, overhead };
        let (news, sentence) = self.enforcer.carry_out(handle, enforced, seen, now);
        self.enforced = enforced;
        if let Some(reason) = sentence {
            self.condemn(reason);
        }
        let (guest, target) = (self.name.clone(), self.target);
        news.map(|news| match news {
            enforcement::News::Confined { rung, cause, withheld, episodes } => {
                EventKind::Confined { guest, rung, cause, target, withheld, episodes }
            }
            enforcement::News::Over { lasted, peak_paged_out } => {
                EventKind::Unconfined { guest, lasted, peak_paged_out }
            }
        })
    }

    /// Sets what follows when the guest goes on to ignore its target.
    pub(super) fn set_ignored_target(&mut self, rule: IgnoredTarget) {
        self.enforcer.set_rule(rule);
    }

    /// Lifts what an earlier supervisor may have put in force.
    pub(super) fn release_confinement(&mut self) {
        if let Life::Running(handle) = &mut self.life {
            handle.limit_resident(None);
            handle.resume();
        }
    }

    /// Sends the host's resources.
    pub(super) fn send_resources(&mut self, resources: &Resources, news: News) {
        if let Life::Running(handle) = &mut self.life {
            handle.send_resources(resources, news);
        }
    }

    /// Returns the sizes between which the guest lives.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Asks the guest to end; [`Self::receive`] reports when it has.
    pub(super) fn request_stop(&mut self) {
        self.verdict.expect_stop();
        if let Life::Running(handle) = &mut self.life {
            handle.request_stop();
        }
    }

    /// Ends the guest's process; [`Self::receive`] reports when it has ended.
    pub(super) fn kill(&mut self) {
        if let Life::Running(handle) = &mut self.life {
            handle.kill();
        }
    }

    /// Closes the record of a running guest, which the next supervisor takes over.
    pub(super) fn leave(&mut self) {
        let left = Life::Ended(Ending { reason: EndReason::Left, details: Vec::new() });
        if let Life::Running(mut handle) = std::mem::replace(&mut self.life, left) {
            if self.enforcer.is_paused() {
                handle.resume();
            }
            handle.leave();
        }
    }

    /// Closes the record of a running guest: reads what was published last, drops its process and
    /// counts its memory as released. Returns the events to report.
    pub(super) fn end(&mut self, ending: Ending, now: Moment) -> Vec<EventKind> {
        let last = self.poll(now);
        self.life = Life::Ended(ending);
        self.state = GuestState::Ended;
        self.target = FrameCount::ZERO;
        self.accounts.close();
        self.enforced = None;
        self.enforcer.close(now);
        last
    }

    /// Keeps a sample for the report.
    pub(super) fn record(&mut self, elapsed: Duration) {
        self.accounts.record(elapsed, self.target);
    }

    pub(super) fn resident(&self) -> FrameCount {
        self.accounts.resident
    }

    /// Returns the host memory that the guest uses, page tables included.
    pub(super) fn charged(&self) -> FrameCount {
        self.accounts.charged()
    }

    /// Returns what the guest may use beyond its size.
    pub(super) fn overhead(&self) -> FrameCount {
        if !self.is_running() {
            return FrameCount::ZERO;
        }
        overhead(self.accounts.size().max(self.target))
            .saturating_add(self.own_memory)
            .saturating_add(self.enforcer.paging_memory())
    }

    /// Returns what the scheduler is told of the guest.
    pub(super) fn sample(&self) -> GuestSample {
        let hints = match self.usage() {
            None if self.accounts.reports == Reports::Never => Hints::FixedSize,
            None => Hints::None,
            Some(usage) if matches!(self.state, GuestState::Silent | GuestState::Paused) => Hints::Stale(usage),
            Some(usage) => Hints::Report(usage),
        };
        let is_acknowledged = self.register.is_acknowledged();
        let targets = if is_acknowledged { Acknowledgement::Given } else { Acknowledgement::Awaited };
        GuestSample {
            allowed: self.register.largest(),
            size: self.accounts.size(),
            resident: self.accounts.charged(),
            hints,
            control: self.enforcer.control(targets, self.state != GuestState::Starting),
        }
    }

    pub(super) fn reading(&self) -> Reading {
        self.accounts.reading(self.target)
    }

    /// Returns the memory that threads in the guest wait for, at most what its machine could have.
    pub(super) fn wanted(&self) -> FrameCount {
        self.accounts.wanted().min(self.limits.max)
    }
}

impl<G> Life<G> {
    fn handle(&self) -> Option<&G> {
        match self {
            Self::Running(handle) => Some(handle),
            Self::Ended(_) => None,
        }
    }

    fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Running(_) => None,
            Self::Ended(ending) => Some(ending),
        }
    }

    fn into_ending(self) -> Option<Ending> {
        match self {
            Self::Running(_) => None,
            Self::Ended(ending) => Some(ending),
        }
    }
}
