//! The parameters of decisions, and a guest's demand by them.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::limits::{Hints, Limits, Usage};

/// How closely memory follows demand.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What a guest gets in addition to its use, so that small growth needs no decision.
    pub headroom: FrameCount,
    /// The same as a part of the use: one frame for so many.
    pub headroom_divisor: u64,
    /// Changes smaller than this are not made, unless a thread in the guest waits for memory.
    pub dead_band: FrameCount,
    /// How long demand must have been lower before an idle guest shrinks while no other guest is
    /// below its entitlement.
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
    /// Returns a guest's demand, in whole huge frames within its limits. `target` is its present
    /// target.
    ///
    /// Memory that a thread waits for counts in addition to what is committed: it is not committed
    /// yet.
    pub(super) fn demand(&self, limits: Limits, hints: Hints, target: FrameCount) -> FrameCount {
        match hints {
            Hints::None => target,
            Hints::Report(usage) => self.wanted_size(limits, usage),
            // A guest that makes no call to its balloon can't deflate it either.
            Hints::Stale(usage) => self.wanted_size(limits, usage).min(target),
        }
    }

    fn wanted_size(&self, limits: Limits, usage: Usage) -> FrameCount {
        let need = usage.used.max(usage.committed).saturating_add(usage.wanted);
        let share = FrameCount(need.0 / self.headroom_divisor.max(1));
        let size = huge_ceil(need.saturating_add(share).saturating_add(self.headroom));
        size.max(limits.min).min(limits.max)
    }
}

/// Returns `count` in whole huge frames, rounded up.
pub(super) fn huge_ceil(count: FrameCount) -> FrameCount {
    FrameCount(count.0.checked_next_multiple_of(HUGE_FRAMES).unwrap_or(u64::MAX - u64::MAX % HUGE_FRAMES))
}

/// Returns `count` in whole huge frames, rounded down.
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
    fn the_larger_of_use_and_commit_counts() {
        assert_eq!(demand(128, 0, 0), 128 + 4 + 8);
        assert_eq!(demand(20, 320, 0), 320 + 10 + 8);
    }

    #[test]
    fn memory_that_is_waited_for_adds_to_the_commit() {
        assert_eq!(demand(120, 320, 96), 320 + 96 + 14 + 8);
        assert_eq!(demand(300, 0, 100), 400 + 14 + 8);
    }

    #[test]
    fn the_limits_bound_demand() {
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
