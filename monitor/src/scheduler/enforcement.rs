//! What is done about a guest that ignores its target. Pure.
//!
//! A target is a request to the guest's balloon driver. A guest that does not follow keeps memory
//! that others are entitled to, so it is confined, one rung after the other:
//!
//! | rung | what the host does | until |
//! |---|---|---|
//! | [`Rung::Asked`] | has asked the balloon | the deadline |
//! | [`Rung::Paging`] | pages the guest's memory out, down to its target | the policy's deadline |
//! | [`Rung::Squeezed`] | presses the process from outside | its answer, or its end |
//! | [`Rung::Paused`] | has stopped the guest, by the policy | its target is its size again |
//! | [`Rung::Ending`] | ends the guest | |
//!
//! *Deadlines* count time in which the guest could run and made no progress. Progress is a part of
//! the most that it withheld: a guest whose balloon inflates steadily makes enough of it, one that
//! releases a page now and then does not. Deadlines are short while another guest waits for memory,
//! and long while none does.
//!
//! *A process that does not answer*, since it was stopped or hangs, can't page. So can't one that
//! acknowledges a limit and does not keep it. It is squeezed, and ended if others still wait.
//!
//! No account depends on a deadline (`accounted_usage.rs`): what was not acknowledged or is
//! resident counts, however much time has passed. A guest is confined to its target and never
//! below, and its target is what the scheduler owes it. When it has followed its target, the
//! episode is over and the host brings back what it has paged out.

use std::fmt;
use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use serde::{Deserialize, Serialize};

use super::accounted_usage::AccountedUsage;
use super::usage::{Acknowledgement, Control};
use crate::clock::Moment;

/// Progress is the release of one frame for so many that were withheld at most.
const PROGRESS_DIVISOR: u64 = 16;

/// How many times as long a process may not answer that can't page: one of QEMU may have other
/// things to do.
const UNPAGED_ANSWER: u32 = 4;

/// How long a guest may make no progress.
struct Deadlines {
    /// Until it is paged.
    paged: Duration,
    /// The same where it can't be: other machines are polled less often, and are slower to follow.
    unpaged: Duration,
    /// Until the policy decides.
    policy: Duration,
    /// How long its process may not answer until it is squeezed.
    squeezed: Duration,
    /// The same until it is ended.
    ended: Duration,
}

/// The deadlines while other guests wait.
const SHORT: Deadlines = Deadlines {
    paged: Duration::from_millis(200),
    unpaged: Duration::from_secs(2),
    policy: Duration::from_secs(5),
    squeezed: Duration::from_secs(1),
    ended: Duration::from_secs(3),
};
/// What a guest has to withhold for its deadline to run. The last pages of a slow guest that
/// follows are less.
const WORTH_CONFINING: FrameCount = FrameCount::from_mib(4);
/// The deadlines while none does.
const LONG: Deadlines = Deadlines {
    paged: Duration::from_secs(10),
    unpaged: Duration::from_secs(10),
    policy: Duration::from_secs(30),
    squeezed: Duration::from_secs(30),
    ended: Duration::MAX,
};

/// What follows when a guest goes on to ignore its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoredTarget {
    /// The host pages its memory for as long as it does.
    #[default]
    Page,
    /// The host stops the guest.
    Pause,
    /// The host ends the guest.
    Kill,
}

/// What the host can do about a guest that ignores its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Means {
    /// Nothing.
    #[default]
    None,
    /// It can squeeze, stop and end its process.
    Process(IgnoredTarget),
    /// It can page its memory, too.
    Paging(IgnoredTarget),
    /// It can stop it, and nothing else: the machine is another program's.
    Pause,
}

/// How far the host has gone with a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Its balloon was asked.
    Asked,
    /// The host pages its memory.
    Paging,
    /// The host presses its process from outside.
    Squeezed,
    /// It is stopped.
    Paused,
    /// It is ended.
    Ending,
}

/// Why a guest is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ignores its target.
    Ignores,
    /// Its process does not answer.
    DoesNotAnswer,
    /// Its process acknowledges limits and does not keep them.
    DoesNotKeepLimits,
}

/// Whether other guests wait for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Wait,
    Content,
}

/// A guest that is larger than its target, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Since when it is.
    pub since: Moment,
    /// By how much.
    pub withheld: FrameCount,
    /// How far the host has gone.
    pub rung: Rung,
    /// Since when.
    pub rung_since: Moment,
    /// Why.
    pub cause: Cause,
    /// What follows, and after how much more time in which the guest can run and makes no progress.
    pub next: Option<(Rung, Duration)>,
}

/// The enforcement of one guest's target.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Enforcement {
    episode: Option<Episode>,
}

/// The time in which a guest is larger than its target.
#[derive(Clone, Copy, Debug)]
struct Episode {
    since: Moment,
    rung: Rung,
    rung_since: Moment,
    cause: Cause,
    withheld: FrameCount,
    others: Others,
    means: Means,
    release: Lap,
    answer: Lap,
    resident: Lap,
}

/// The time since a count last fell by enough, as far as it counts.
#[derive(Clone, Copy, Debug)]
struct Lap {
    /// The most that the count was.
    most: FrameCount,
    /// What it was when it last fell by enough.
    mark: FrameCount,
    spent: Duration,
}

impl Lap {
    const fn new(count: FrameCount) -> Self {
        Self { most: count, mark: count, spent: Duration::ZERO }
    }

    fn advance(&mut self, count: FrameCount, passed: Duration) {
        self.most = self.most.max(count);
        let enough = FrameCount((self.most.0 / PROGRESS_DIVISOR).max(HUGE_FRAMES));
        if count.saturating_add(enough) <= self.mark {
            self.restart(count);
        } else {
            // What is asked of the guest may have grown meanwhile. That is no reason to begin anew.
            self.mark = self.mark.max(count);
            self.spent = self.spent.saturating_add(passed);
        }
    }

    fn restart(&mut self, count: FrameCount) {
        self.mark = count;
        self.spent = Duration::ZERO;
    }
}

impl Enforcement {
    /// Notes what was last seen of the guest.
    pub(super) fn observe(&mut self, account: &AccountedUsage, control: &Control, others: Others, now: Moment) {
        let withheld = account.withheld();
        // Less than a huge frame is no reason to begin, and the rest of it none to end.
        if withheld == FrameCount::ZERO || (self.episode.is_none() && withheld < FrameCount(HUGE_FRAMES)) {
            self.episode = None;
            return;
        }
        let mut episode = self.episode.unwrap_or_else(|| Episode::new(account, now));
        episode.observe(account, control, others);
        episode.climb(now);
        self.episode = Some(episode);
    }

    /// Returns what is done about the guest, if it is larger than its target.
    pub(super) fn enforced(&self) -> Option<Enforced> {
        let Episode { since, withheld, rung, rung_since, cause, .. } = self.episode?;
        let next = self.episode.as_ref().and_then(Episode::next);
        Some(Enforced { since, withheld, rung, rung_since, cause, next })
    }

    /// Returns whether the guest is going to hold no more than its target, whatever it does.
    pub(super) fn is_certain(&self) -> bool {
        self.episode.is_some_and(|episode| match (episode.rung, episode.means) {
            (_, Means::None | Means::Pause) => false,
            (Rung::Ending, _) | (_, Means::Paging(_) | Means::Process(IgnoredTarget::Kill)) => true,
            // To stop a guest frees none of its memory, and to squeeze it may free little.
            (rung, Means::Process(_)) => rung == Rung::Asked || episode.failing() > Duration::ZERO,
        })
    }
}

impl Enforced {
    /// Returns whether the guest's resident memory is to be limited to its target.
    #[must_use]
    pub fn is_to_be_limited(&self) -> bool {
        self.rung != Rung::Asked
    }
}

impl Episode {
    fn new(account: &AccountedUsage, now: Moment) -> Self {
        Self {
            since: now,
            rung: Rung::Asked,
            rung_since: now,
            cause: Cause::Ignores,
            withheld: account.withheld(),
            others: Others::Content,
            means: Means::None,
            release: Lap::new(account.withheld()),
            answer: Lap::new(FrameCount::ZERO),
            resident: Lap::new(account.resident()),
        }
    }

    fn observe(&mut self, account: &AccountedUsage, control: &Control, others: Others) {
        let passed = control.could_run;
        (self.withheld, self.others, self.means) = (account.withheld(), others, control.means);
        if self.rung == Rung::Asked && self.withheld < WORTH_CONFINING {
            self.release.restart(self.withheld);
        } else {
            self.release.advance(self.withheld, passed);
        }
        match control.acknowledgement {
            Acknowledgement::Given => self.answer.restart(FrameCount::ZERO),
            Acknowledgement::Awaited => self.answer.advance(FrameCount::ZERO, passed),
        }
        if account.is_confined() && account.is_resident_beyond_target() {
            self.resident.advance(account.resident(), passed);
        } else {
            self.resident = Lap::new(account.resident());
        }
    }

    /// Goes on to what is due.
    fn climb(&mut self, now: Moment) {
        if self.is_pardoned() {
            // A limit that is in force is not lifted before the guest has followed: what it frees
            // may be granted to others already.
            let is_pageable = matches!(self.means, Means::Paging(_));
            self.go_to(if is_pageable { Rung::Paging } else { Rung::Asked }, now);
            self.cause = Cause::Ignores;
            self.release.restart(self.withheld);
        }
        // Several rungs may be due at once, where others have begun to wait.
        while let Some((rung, Duration::ZERO)) = self.next() {
            self.cause = self.cause();
            self.go_to(rung, now);
        }
    }

    fn go_to(&mut self, rung: Rung, now: Moment) {
        if self.rung != rung {
            (self.rung, self.rung_since) = (rung, now);
        }
    }

    /// Returns whether what the rung was for is over, although the guest still withholds memory:
    /// its process answers again, or the policy was changed.
    fn is_pardoned(&self) -> bool {
        match self.rung {
            Rung::Asked | Rung::Paging | Rung::Ending => false,
            Rung::Squeezed => matches!(self.means, Means::Paging(_)) && self.failing() == Duration::ZERO,
            Rung::Paused => !matches!(
                self.means,
                Means::Process(IgnoredTarget::Pause) | Means::Paging(IgnoredTarget::Pause) | Means::Pause
            ),
        }
    }

    /// Returns how long its process has not answered, or not kept its limit.
    fn failing(&self) -> Duration {
        self.answer.spent.max(self.resident.spent)
    }

    fn cause(&self) -> Cause {
        let Deadlines { squeezed, .. } = self.deadlines();
        match () {
            () if self.answer.spent >= squeezed => Cause::DoesNotAnswer,
            () if self.resident.spent >= squeezed => Cause::DoesNotKeepLimits,
            () => Cause::Ignores,
        }
    }

    const fn deadlines(&self) -> Deadlines {
        match self.others {
            Others::Wait => SHORT,
            Others::Content => LONG,
        }
    }

    /// Returns the next rung, and how much more time has to count until then.
    fn next(&self) -> Option<(Rung, Duration)> {
        let Deadlines { paged, unpaged, policy, squeezed, ended } = self.deadlines();
        let ended = match self.means {
            Means::Process(_) => ended.saturating_mul(UNPAGED_ANSWER),
            Means::None | Means::Paging(_) | Means::Pause => ended,
        };
        let by_guest = |rung, deadline: Duration| (rung, deadline.saturating_sub(self.release.spent));
        let by_process = |rung, deadline: Duration| (rung, deadline.saturating_sub(self.failing()));
        let by_policy = |rule| match rule {
            IgnoredTarget::Page => None,
            IgnoredTarget::Pause => Some(by_guest(Rung::Paused, policy)),
            IgnoredTarget::Kill => Some(by_guest(Rung::Ending, policy)),
        };
        let is_failing = self.failing() > Duration::ZERO;
        let end = is_failing.then(|| by_process(Rung::Ending, ended)).filter(|(_, left)| *left < Duration::MAX / 2);
        let squeeze = is_failing.then(|| by_process(Rung::Squeezed, squeezed));
        let candidates = match (self.rung, self.means) {
            (Rung::Ending, _) | (_, Means::None) => [None, None],
            (Rung::Paused, Means::Pause) => [None, None],
            (Rung::Paused, _) => [end, None],
            (Rung::Squeezed, Means::Process(rule)) => [end, by_policy(rule)],
            (Rung::Squeezed, Means::Paging(_)) => [end, None],
            (_, Means::Pause) => [by_policy(IgnoredTarget::Pause), None],
            (Rung::Asked, Means::Process(_)) => [squeeze, Some(by_guest(Rung::Squeezed, unpaged))],
            (Rung::Asked, Means::Paging(_)) => [squeeze, Some(by_guest(Rung::Paging, paged))],
            (Rung::Paging, Means::Paging(rule) | Means::Process(rule)) => [squeeze, by_policy(rule)],
        };
        candidates.into_iter().flatten().min_by_key(|(_, left)| *left)
    }
}

impl fmt::Display for IgnoredTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "page",
            Self::Pause => "pause",
            Self::Kill => "kill",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ignores => "it ignores its target",
            Self::DoesNotAnswer => "its process does not answer",
            Self::DoesNotKeepLimits => "its process does not keep its limit",
        })
    }
}

#[cfg(test)]
mod tests;
