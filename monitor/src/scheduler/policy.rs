//! The numbers that shape decisions, and a guest's demand by them.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::limits::{Hints, Limits, Usage};

/// How eagerly memory follows demand.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What a guest gets on top of its use, so that small growth needs no decision.
    pub headroom: FrameCount,
    /// The same as a part of the use: one frame for so many.
    pub headroom_divisor: u64,
    /// Changes smaller than this are left alone, unless somebody waits.
    pub dead_band: FrameCount,
    /// How long demand must have been lower before an idle guest shrinks while nobody else is
    /// short.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            headroom: FrameCount::from_mib(8),
            headroom_divisor: 32,
            dead_band: FrameCount::from_mib(4),
            patience: Duration::from_millis(300),
        }
    }
}

impl Policy {
    /// How large a guest would like to be: whole huge frames within its limits. `target` is what it
    /// has now.
    ///
    /// Waiting memory counts on top of what is committed: whoever waits has been committed nothing
    /// yet.
    pub(super) fn demand(&self, limits: Limits, hints: Hints, target: FrameCount) -> FrameCount {
        match hints {
            Hints::None => target,
            Hints::Report(usage) => self.wish(limits, usage),
            // A guest that does not come to its balloon can't take anything back either.
            Hints::Stale(usage) => self.wish(limits, usage).min(target),
        }
    }

    fn wish(&self, limits: Limits, usage: Usage) -> FrameCount {
        let need = usage.used.max(usage.committed).saturating_add(usage.wanted);
        let share = FrameCount(need.0 / self.headroom_divisor.max(1));
        let wish = huge_ceil(need.saturating_add(share).saturating_add(self.headroom));
        wish.max(limits.min).min(limits.max)
    }
}

/// `count` in whole huge frames, rounded up.
pub(super) fn huge_ceil(count: FrameCount) -> FrameCount {
    FrameCount(count.0.checked_next_multiple_of(HUGE_FRAMES).unwrap_or(u64::MAX - u64::MAX % HUGE_FRAMES))
}

/// `count` in whole huge frames, rounded down.
pub(super) fn huge_floor(count: FrameCount) -> FrameCount {
    FrameCount(count.0 - count.0 % HUGE_FRAMES)
}

#[cfg(test)]
mod tests {
    use super::{Hints, Limits, Policy, Usage, huge_ceil, huge_floor};
    use aerostat_abi::units::FrameCount;

    const LIMITS: Limits = Limits { min: FrameCount::from_mib(64), max: FrameCount::from_mib(512) };

    fn demand(used_mib: u64, committed_mib: u64, wanted_mib: u64) -> u64 {
        let usage = Usage {
            used: FrameCount::from_mib(used_mib),
            committed: FrameCount::from_mib(committed_mib),
            wanted: FrameCount::from_mib(wanted_mib),
        };
        Policy::default().demand(LIMITS, Hints::Report(usage), FrameCount::ZERO).mib()
    }

    #[test]
    fn the_larger_of_use_and_promise_counts() {
        assert_eq!(demand(128, 0, 0), 128 + 4 + 8);
        assert_eq!(demand(20, 320, 0), 320 + 10 + 8);
    }

    #[test]
    fn who_waits_wants_more_than_was_promised() {
        assert_eq!(demand(120, 320, 96), 320 + 96 + 14 + 8);
        assert_eq!(demand(300, 0, 100), 400 + 14 + 8);
    }

    #[test]
    fn the_contract_bounds_demand() {
        assert_eq!(demand(0, 0, 0), 64);
        assert_eq!(demand(500, 512, 512), 512);
    }

    #[test]
    fn a_guest_that_says_nothing_keeps_what_it_has() {
        let target = FrameCount::from_mib(96);
        assert_eq!(Policy::default().demand(LIMITS, Hints::None, target), target);
        let usage = Usage { used: FrameCount::from_mib(400), ..Usage::default() };
        assert_eq!(Policy::default().demand(LIMITS, Hints::Stale(usage), target), target);
    }

    #[test]
    fn rounding_goes_to_huge_frames_and_never_wraps() {
        assert_eq!(huge_ceil(FrameCount(513)), FrameCount(1024));
        assert_eq!(huge_floor(FrameCount(1023)), FrameCount(512));
        assert!(huge_ceil(FrameCount(u64::MAX)) > FrameCount(u64::MAX - 512));
    }
}
