//! How fast the balloon may move: additive increase on success, division on failure, within bounds.
//!
//! The rule is the one of the ballooning patent (US 7,433,951). A pure machine: it is told what happened and when, and says how
//! many frames may move now. Inflating and failing at it costs the guest; so a balloon that finds nothing tries less and less often,
//! down to the smallest rate, and one that finds plenty soon runs at the speed of the host.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The machine's bounds and steps, in frames per second.
#[derive(Clone, Copy, Debug)]
pub struct RateLimits {
    /// Never slower than this.
    pub min: u64,
    /// Never faster.
    pub max: u64,
    /// Added on success.
    pub increase: u64,
    /// Divides on failure.
    pub divisor: u64,
}

impl RateLimits {
    /// From 2 MiB/s to 1 TiB/s, 16 GiB/s faster on each success, a quarter on each failure.
    pub const DEFAULT: Self = Self {
        min: FrameCount::from_mib(2).0,
        max: FrameCount::from_mib(1 << 20).0,
        increase: FrameCount::from_mib(16 << 10).0,
        divisor: 4,
    };
}

/// The balloon's rate.
#[derive(Clone, Debug)]
pub struct Rate {
    limits: RateLimits,
    frames_per_s: u64,
    /// Frames that may move at `since`.
    credit: u64,
    since_ns: u64,
}

impl Rate {
    /// Starts at the first step above the smallest rate.
    pub fn new(limits: RateLimits, now_ns: u64) -> Self {
        let frames_per_s = (limits.min + limits.increase).min(limits.max);
        Self { limits, frames_per_s, credit: HUGE_FRAMES, since_ns: now_ns }
    }

    /// Frames per second.
    pub fn frames_per_s(&self) -> u64 {
        self.frames_per_s
    }

    /// Frames that may move now. At most a tenth of a second's worth (a huge frame at least) is
    /// kept: a long rest is no licence for a burst.
    pub fn allowance(&mut self, now_ns: u64) -> FrameCount {
        let earned = u128::from(self.frames_per_s) * u128::from(now_ns.saturating_sub(self.since_ns))
            / u128::from(NANOS_PER_SECOND);
        let most = (self.frames_per_s / 10).max(HUGE_FRAMES);
        self.credit = self.credit.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(most);
        self.since_ns = now_ns;
        FrameCount(self.credit)
    }

    /// When at least a huge frame may move.
    pub fn next_allowance(&self) -> u64 {
        let missing = HUGE_FRAMES.saturating_sub(self.credit);
        self.since_ns.saturating_add((missing * NANOS_PER_SECOND).div_ceil(self.frames_per_s.max(1)))
    }

    /// So many frames moved, as wished.
    pub fn succeeded(&mut self, frames: FrameCount) {
        self.credit = self.credit.saturating_sub(frames.0);
        self.frames_per_s = (self.frames_per_s + self.limits.increase).min(self.limits.max);
    }

    /// There was nothing to move.
    pub fn failed(&mut self) {
        self.credit = 0;
        self.frames_per_s = (self.frames_per_s / self.limits.divisor).max(self.limits.min);
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, RateLimits};
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    const LIMITS: RateLimits = RateLimits { min: 512, max: 100_000, increase: 1000, divisor: 2 };

    #[test]
    fn failures_slow_it_down_to_the_smallest_rate_and_success_speeds_it_up() {
        let mut rate = Rate::new(LIMITS, 0);
        for _ in 0..20 {
            rate.failed();
        }
        assert_eq!(rate.frames_per_s(), 512);
        assert_eq!(rate.next_allowance(), 1_000_000_000, "one huge frame a second");
        rate.succeeded(FrameCount(1));
        assert_eq!(rate.frames_per_s(), 1512);
    }

    #[test]
    fn a_long_rest_earns_no_burst() {
        let mut rate = Rate::new(LIMITS, 0);
        assert_eq!(rate.allowance(3_600_000_000_000), FrameCount(HUGE_FRAMES));
    }

    proptest! {
        #[test]
        fn stays_within_bounds_and_waiting_always_helps(steps in vec((0_u8..3, 0_u64..2_000_000_000), 1..100)) {
            let mut now = 0;
            let mut rate = Rate::new(LIMITS, 0);
            for (step, pause) in steps {
                now += pause;
                let allowed = rate.allowance(now);
                match step {
                    0 => rate.succeeded(FrameCount(allowed.0 / 2)),
                    1 => rate.failed(),
                    _ => {}
                }
                prop_assert!((LIMITS.min..=LIMITS.max).contains(&rate.frames_per_s()));
                let next = rate.next_allowance();
                prop_assert!(rate.clone().allowance(next).0 + 1 >= HUGE_FRAMES);
            }
        }
    }
}
