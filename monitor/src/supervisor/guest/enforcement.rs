//! Carries out what the scheduler decides about a guest that ignores its target
//! ([`crate::scheduler::Enforced`]), and keeps the totals.
//!
//! The guest's process is told a limit of its resident memory, or is squeezed, paused or ended. The
//! scheduler is told what can be done, what the process has acknowledged, and how much time counts.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use crate::clock::Moment;
use crate::fleet::{GuestSpec, Machine};
use crate::host::{EndReason, GuestHandle, Observation, PagingCounters};
use crate::scheduler::{Acknowledgement, Cause, Control, Enforced, IgnoredTarget, Means, ResidentLimit, Rung};
use crate::supervisor::enforcement::EnforcementTotals;
use crate::supervisor::episodes::Episodes;

/// The most time between two polls that counts: the rest is a delay of the supervisor.
const MOST_BETWEEN_POLLS: Duration = Duration::from_millis(250);
/// A part of time that counts in any case, so that a process can't escape its deadlines by threads
/// that compete for the processor.
const LEAST_PART: u32 = 4;
/// Memory of a process that pages: a huge frame that is read and one that is written, two threads,
/// the page tables of the swap cache, and those of guest memory that has left.
const PAGING_MEMORY: FrameCount = FrameCount::from_mib(8);
/// How often a process that does not answer is squeezed.
const SQUEEZE_AGAIN: Duration = Duration::from_secs(1);

/// What the supervisor does about one guest, and did.
#[derive(Debug)]
pub(super) struct Enforcer {
    rule: IgnoredTarget,
    owner: Owner,
    limit: ResidentLimit,
    clock: RunClock,
    could_run: Duration,
    /// Frames that are paged out; `None` where the guest can't be paged.
    pub(super) paged_out: Option<FrameCount>,
    /// What is in force, as of the last poll.
    rung: Rung,
    confined: Option<Confined>,
    squeezed: Option<Moment>,
    episodes: Episodes,
    totals: EnforcementTotals,
}

/// Whose the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Us,
    /// It is never ended, and paused only where the guest's own rule says so.
    Others,
}

/// The time in which a guest is confined.
#[derive(Clone, Copy, Debug)]
struct Confined {
    since: Moment,
    peak_paged_out: FrameCount,
    /// If its begin is reported, so is its end: how often one began since the last report.
    told: Option<u64>,
}

/// What is seen of a guest when something is done about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) target: FrameCount,
    pub(super) resident: FrameCount,
    /// What counts for the guest besides: its page tables, and memory of its process.
    pub(super) overhead: FrameCount,
}

impl Seen {
    /// Returns the limit of resident memory with which the guest holds no more than its target, in
    /// whole huge frames, so that it seldom changes.
    fn limit(&self) -> FrameCount {
        let limit = self.target.saturating_sub(self.overhead);
        FrameCount(limit.0 - limit.0 % HUGE_FRAMES)
    }
}

/// What is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Confined { rung: Rung, cause: Cause, withheld: FrameCount, episodes: u64 },
    Over { lasted: Duration, peak_paged_out: FrameCount },
}

impl Enforcer {
    pub(super) fn new(spec: &GuestSpec) -> Self {
        Self {
            rule: spec.ignored_target,
            owner: if matches!(spec.machine, Machine::Attached(_)) { Owner::Others } else { Owner::Us },
            limit: ResidentLimit::default(),
            clock: RunClock::default(),
            could_run: Duration::ZERO,
            paged_out: None,
            rung: Rung::Asked,
            confined: None,
            squeezed: None,
            episodes: Episodes::default(),
            totals: EnforcementTotals::default(),
        }
    }

    /// Sets what follows when the guest goes on to ignore its target.
    pub(super) fn set_rule(&mut self, rule: IgnoredTarget) {
        self.rule = rule;
    }

    /// Returns what the guest's process may use to page it, once it has.
    pub(super) fn paging_memory(&self) -> FrameCount {
        if self.totals.paged_out > FrameCount::ZERO { PAGING_MEMORY } else { FrameCount::ZERO }
    }

    /// Returns the largest limit of resident memory that the process may still act on; `None` where
    /// it may act on none.
    pub(super) fn resident_limit(&self) -> Option<FrameCount> {
        self.limit.largest()
    }

    pub(super) fn is_paused(&self) -> bool {
        self.rung == Rung::Paused
    }

    /// Counts the time of a guest that has ended.
    pub(super) fn close(&mut self, now: Moment) {
        self.paged_out = None;
        if let Some(Confined { since, .. }) = self.confined.take() {
            self.totals.confined = self.totals.confined.saturating_add(now.since(since));
        }
    }

    /// Returns what was done so far.
    pub(super) fn totals(&self) -> EnforcementTotals {
        EnforcementTotals { episodes: self.episodes.count(), ..self.totals }
    }

    /// Notes what the guest's process has published. `waited` returns how long its threads have
    /// waited for a processor, and is called while that matters.
    pub(super) fn observe(&mut self, observation: &Observation, waited: Option<Duration>, now: Moment) {
        self.limit.acknowledge(observation.resident_limit);
        self.could_run = self.clock.advance(waited, now);
        self.paged_out = observation.paged_out;
        if self.paged_out.is_none() {
            self.limit.withdraw();
        }
        if let Some(PagingCounters { out, back }) = observation.paging {
            (self.totals.paged_out, self.totals.paged_in) = (out, back);
        }
        if let (Some(confined), Some(paged_out)) = (&mut self.confined, self.paged_out) {
            confined.peak_paged_out = confined.peak_paged_out.max(paged_out);
            self.totals.peak_paged_out = self.totals.peak_paged_out.max(paged_out);
        }
    }

    /// Returns what the scheduler is told; `targets` says whether the process has acknowledged its
    /// last target. No time counts for a guest that has not started yet.
    pub(super) fn control(&self, targets: Acknowledgement, has_started: bool) -> Control {
        let is_acknowledged = targets == Acknowledgement::Given && self.limit.is_acknowledged();
        Control {
            limit: self.limit.largest(),
            acknowledgement: if is_acknowledged { Acknowledgement::Given } else { Acknowledgement::Awaited },
            could_run: if has_started { self.could_run } else { Duration::ZERO },
            means: match (self.owner, self.rule) {
                (Owner::Others, IgnoredTarget::Pause) => Means::Pause,
                (Owner::Others, IgnoredTarget::Page | IgnoredTarget::Kill) => Means::None,
                (Owner::Us, rule) if self.paged_out.is_some() => Means::Paging(rule),
                (Owner::Us, rule) => Means::Process(rule),
            },
        }
    }

    /// Does what is to be done. Returns what is to be reported, and why the guest is to end, if it
    /// is.
    pub(super) fn carry_out(
        &mut self,
        handle: &mut impl GuestHandle,
        enforced: Option<Enforced>,
        seen: Seen,
        now: Moment,
    ) -> (Option<News>, Option<EndReason>) {
        let rung = enforced.map_or(Rung::Asked, |enforced| enforced.rung);
        // A process that says no more that it can page is still held to its limit.
        let can_be_limited = self.paged_out.is_some() || self.limit.sent().is_some();
        let is_limited = can_be_limited && enforced.is_some_and(|enforced| enforced.is_to_be_limited());
        if let Some(limit) = self.limit.send(is_limited.then(|| seen.limit())) {
            handle.limit_resident(limit);
        }
        let before = std::mem::replace(&mut self.rung, rung);
        match (before == Rung::Paused, rung == Rung::Paused) {
            (false, true) => {
                self.totals.pauses += 1;
                handle.pause();
            }
            (true, false) => handle.resume(),
            (true, true) | (false, false) => {}
        }
        if rung == Rung::Squeezed {
            self.squeeze(handle, seen, now);
        } else {
            self.squeezed = None;
        }
        (self.news(enforced, before, now), enforced.and_then(|enforced| sentence(&enforced)))
    }

    fn squeeze(&mut self, handle: &mut impl GuestHandle, seen: Seen, now: Moment) {
        if self.squeezed.is_some_and(|at| now.since(at) < SQUEEZE_AGAIN) {
            return;
        }
        self.squeezed = Some(now);
        let excess = seen.resident.saturating_sub(seen.target);
        if excess > FrameCount::ZERO && handle.squeeze(excess) {
            self.totals.squeezes += 1;
        }
    }

    fn news(&mut self, enforced: Option<Enforced>, before: Rung, now: Moment) -> Option<News> {
        let enforced = enforced.filter(|enforced| enforced.rung != Rung::Asked);
        let begun = self.episodes.observe(enforced.is_some(), now);
        let Some(Enforced { rung, cause, withheld, .. }) = enforced else {
            let Confined { since, peak_paged_out, told } = self.confined.take()?;
            let lasted = now.since(since);
            self.totals.confined = self.totals.confined.saturating_add(lasted);
            return told.map(|_| News::Over { lasted, peak_paged_out });
        };
        let new = Confined { since: now, peak_paged_out: FrameCount::ZERO, told: begun };
        let confined = self.confined.get_or_insert(new);
        // How it ends is reported as the guest's end.
        let is_told = rung != before && rung != Rung::Ending;
        confined.told.filter(|_| is_told).map(|episodes| {
            let episodes = if begun.is_some() { episodes } else { 1 };
            News::Confined { rung, cause, withheld, episodes }
        })
    }
}

/// Returns why a guest is to end, if it is.
fn sentence(enforced: &Enforced) -> Option<EndReason> {
    let Enforced { rung: Rung::Ending, withheld, cause, .. } = enforced else { return None };
    let failed = |why: &str| EndReason::Failed(why.to_owned());
    Some(match cause {
        Cause::Ignores => EndReason::IgnoredTarget(*withheld),
        Cause::DoesNotAnswer => failed("its process did not answer while other guests waited for its memory"),
        Cause::DoesNotKeepLimits => failed("its process kept more memory than the limit that it had acknowledged"),
    })
}

/// The time in which a guest could run: not that in which its process waited for a processor, nor
/// that in which the supervisor did.
#[derive(Debug, Default)]
struct RunClock {
    last: Option<(Moment, Option<Duration>)>,
}

impl RunClock {
    /// Returns the time since the last call, as far as it counts. `waited` is how long the
    /// process's threads have waited for a processor since they began.
    fn advance(&mut self, waited: Option<Duration>, now: Moment) -> Duration {
        let Some((last, waited_before)) = self.last.replace((now, waited)) else { return Duration::ZERO };
        let passed = now.since(last).min(MOST_BETWEEN_POLLS);
        let waited = waited.zip(waited_before).map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        passed.saturating_sub(waited).max(passed / LEAST_PART)
    }
}

#[cfg(test)]
mod tests {
    use super::RunClock;
    use crate::clock::Moment;
    use std::time::Duration;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_counts_in_which_the_guest_could_run() {
        let mut clock = RunClock::default();
        let start = Moment::from_ns(1);
        let mut advance = |at: u64, waited: Option<u64>| clock.advance(waited.map(ms), start.after(ms(at)));
        assert_eq!(advance(0, None), ms(0));
        assert_eq!(advance(20, None), ms(20), "the host does not say");
        assert_eq!(advance(40, Some(500)), ms(20), "it has waited before, too");
        assert_eq!(advance(60, Some(512)), ms(8));
        assert_eq!(advance(80, Some(900)), ms(5), "threads that compete with each other are no way out");
        assert_eq!(advance(9080, Some(900)), ms(250), "the supervisor itself was late");
    }
}
