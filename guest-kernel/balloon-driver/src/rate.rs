//! How fast the balloon may move: additive increase on success, division on failure, within bounds.
//!
//! The rule is the one of the ballooning patent (US 7,433,951). Attempts to inflate that fail cost
//! the guest time. So each failure slows the balloon down, at worst to the smallest rate, and a
//! balloon that finds enough memory soon reaches the largest rate again. It starts at the largest
//! rate. Pure: the caller says what happened and when; the rate says how many frames may move now.

use core::fmt;

use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount, HUGE_FRAMES};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// The largest rate that a user may set, in MiB/s: more than memory can do.
const MAX_MIB_PER_S: u64 = 16 << 20;
/// Successes that bring the smallest rate to the largest.
const STEPS: u64 = 16;
/// A failure divides the rate by this.
const DIVISOR: u64 = 4;

/// The bounds of a balloon's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Frames per second.
    min: u64,
    max: u64,
}

/// The text is not a valid range of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRate;

impl fmt::Display for BadRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "balloon_rate= is no range of MiB per second within 1-16777216; say, for example, balloon_rate=2-4096",
        )
    }
}

impl fmt::Display for RateLimits {
    /// Formats the limits as [`RateLimits::parse`] takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min / FRAMES_PER_MIB, self.max / FRAMES_PER_MIB)
    }
}

impl RateLimits {
    /// From 2 MiB/s, which is a huge frame a second, to 4 TiB/s, which no host reaches.
    pub const DEFAULT: Self = Self { min: FrameCount::from_mib(2).0, max: FrameCount::from_mib(4 << 20).0 };

    /// No limits, and failures do not slow it down: for a driver that its host paces.
    pub const NONE: Self = Self { min: Self::DEFAULT.max, max: Self::DEFAULT.max };

    /// Parses `MIN-MAX`, in MiB per second.
    ///
    /// # Errors
    /// [`BadRate`] when the text is something else, or a number is out of range.
    pub fn parse(text: &str) -> Result<Self, BadRate> {
        let (min, max) = text.split_once('-').ok_or(BadRate)?;
        let rate = |text: &str| text.parse().ok().filter(|rate| (1..=MAX_MIB_PER_S).contains(rate)).ok_or(BadRate);
        let (min, max) = (rate(min)?, rate(max)?);
        if min > max {
            return Err(BadRate);
        }
        Ok(Self { min: min * FRAMES_PER_MIB, max: max * FRAMES_PER_MIB })
    }

    fn increase(&self) -> u64 {
        ((self.max - self.min) / STEPS).max(1)
    }
}

/// The balloon's rate.
#[derive(Clone, Debug)]
pub struct Rate {
    limits: RateLimits,
    frames_per_s: u64,
    /// Frames that may move at `budget_ns`.
    budget: u64,
    budget_ns: u64,
}

impl Rate {
    /// Returns the largest rate within `limits`.
    #[must_use]
    pub fn new(limits: RateLimits, now_ns: u64) -> Self {
        let mut rate = Self { limits, frames_per_s: limits.max, budget: 0, budget_ns: now_ns };
        rate.budget = rate.max_budget();
        rate
    }

    /// Returns the rate in frames per second.
    #[must_use]
    pub fn frames_per_s(&self) -> u64 {
        self.frames_per_s
    }

    /// Returns the number of frames that may move now.
    pub fn budget(&mut self, now_ns: u64) -> FrameCount {
        let elapsed_ns = now_ns.saturating_sub(self.budget_ns);
        let earned = u128::from(self.frames_per_s) * u128::from(elapsed_ns) / u128::from(NANOS_PER_SECOND);
        let budget = self.budget.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX));
        self.budget = budget.min(self.max_budget());
        self.budget_ns = now_ns;
        FrameCount(self.budget)
    }

    /// Returns the largest budget: the frames of a tenth of a second, at least a huge frame. So a
    /// long rest does not permit a long burst.
    fn max_budget(&self) -> u64 {
        (self.frames_per_s / 10).max(HUGE_FRAMES)
    }

    /// Returns when at least a huge frame may move.
    #[must_use]
    pub fn next_budget_ns(&self) -> u64 {
        let missing = HUGE_FRAMES.saturating_sub(self.budget);
        self.budget_ns.saturating_add((missing * NANOS_PER_SECOND).div_ceil(self.frames_per_s))
    }

    /// Notes that `frames` frames have moved.
    pub fn spend(&mut self, frames: FrameCount) {
        self.budget = self.budget.saturating_sub(frames.0);
    }

    /// Notes that all wanted frames have moved, and raises the rate.
    pub fn succeeded(&mut self) {
        self.frames_per_s = (self.frames_per_s + self.limits.increase()).min(self.limits.max);
    }

    /// Notes that too few frames were found or could be moved, and lowers the rate.
    pub fn failed(&mut self) {
        self.frames_per_s = (self.frames_per_s / DIVISOR).max(self.limits.min);
        self.budget = self.budget.min(self.max_budget());
    }
}

#[cfg(test)]
mod tests {
    use super::{BadRate, Rate, RateLimits};
    use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    const LIMITS: RateLimits = RateLimits { min: 512, max: 16_512 };
    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn failures_lower_the_rate_to_the_smallest_and_successes_raise_it() {
        let mut rate = Rate::new(LIMITS, 0);
        assert_eq!(rate.frames_per_s(), 16_512, "nothing has failed yet");
        for _ in 0..20 {
            rate.failed();
        }
        assert_eq!((rate.frames_per_s(), rate.budget(0)), (512, FrameCount(HUGE_FRAMES)));
        rate.spend(FrameCount(HUGE_FRAMES));
        assert_eq!(rate.next_budget_ns(), SECOND_NS, "one huge frame a second");
        rate.succeeded();
        assert_eq!(rate.frames_per_s(), 1512);
        for _ in 0..20 {
            rate.succeeded();
        }
        assert_eq!(rate.frames_per_s(), 16_512);
    }

    #[test]
    fn without_limits_failures_do_not_lower_the_rate() {
        let mut rate = Rate::new(RateLimits::NONE, 0);
        rate.failed();
        assert_eq!(rate.frames_per_s(), RateLimits::DEFAULT.max);
    }

    #[test]
    fn a_long_rest_does_not_permit_a_long_burst() {
        let mut rate = Rate::new(LIMITS, 0);
        assert_eq!(rate.budget(3600 * SECOND_NS), FrameCount(1651));
        rate.spend(FrameCount(1651));
        assert_eq!(rate.budget(3600 * SECOND_NS), FrameCount::ZERO);
    }

    #[test]
    fn limits_are_parsed_in_mib() {
        let parsed = |text| RateLimits::parse(text);
        assert_eq!(parsed("2-4194304"), Ok(RateLimits::DEFAULT));
        assert_eq!(parsed("1-1"), Ok(RateLimits { min: 256, max: 256 }));
        for wrong in
            ["", "-", "5", "5-", "-5", "5-4", "0-4", "1-16777217", "1-2-3", "1 -2", "1K-2K", "18446744073709551616-1"]
        {
            assert_eq!(parsed(wrong), Err(BadRate), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_rate_stays_within_its_limits_and_waiting_always_helps(
            steps in vec((0_u8..3, 0_u64..2_000_000_000), 1..100)
        ) {
            let mut now = 0;
            let mut rate = Rate::new(LIMITS, 0);
            for (step, pause) in steps {
                now += pause;
                let allowed = rate.budget(now);
                rate.spend(FrameCount(allowed.0 / 2));
                match step {
                    0 => rate.succeeded(),
                    1 => rate.failed(),
                    _ => {}
                }
                prop_assert!((LIMITS.min..=LIMITS.max).contains(&rate.frames_per_s()));
                let next = rate.next_budget_ns();
                prop_assert!(rate.clone().budget(next).0 + 1 >= HUGE_FRAMES);
            }
        }
    }
}
