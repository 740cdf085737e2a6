//! The numbers that shape decisions.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use serde::{Deserialize, Serialize};

use super::working_set::Activity;

/// How eagerly memory follows demand.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What a guest should get on top of its use, so that small growth needs no decision.
    pub headroom: FrameCount,
    /// The same as a part of the use: one frame for each so many.
    pub headroom_divisor: u64,
    /// Smaller changes are not made, unless a thread of the guest waits.
    pub dead_band: FrameCount,
    /// How long an idle guest at first keeps memory that is not needed elsewhere.
    pub patience: Duration,
    /// How much more idle memory costs a guest than active memory.
    pub idle_tax: IdleTax,
}

impl Policy {
    /// Returns the headroom of a guest that uses so much.
    pub(super) fn headroom_of(&self, used: FrameCount) -> FrameCount {
        FrameCount(used.0 / self.headroom_divisor.max(1)).saturating_add(self.headroom)
    }
}

/// The part of a guest's idle memory that others may reclaim while they are short, in per cent: 0
/// to 100. Source: Waldspurger, OSDI 2002, section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct IdleTax(u8);

/// A tax beyond 100 per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idle tax of {0} is no percentage; take 0 to 100")]
pub struct BadTax(pub u8);

impl IdleTax {
    /// Checks a percentage.
    ///
    /// # Errors
    ///
    /// [`BadTax`] above 100.
    pub const fn new(percent: u8) -> Result<Self, BadTax> {
        if percent > 100 { Err(BadTax(percent)) } else { Ok(Self(percent)) }
    }

    /// Returns the percentage.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// Returns the weight of a claim with these shares, of a guest with this activity.
    ///
    /// The paper's shares for each page are `S / (P * (f + k * (1 - f)))`, where `f` is the active
    /// part and `k = 1 / (1 - tax)` what an idle page costs in active ones. The weight is what
    /// stands before the pages.
    pub(super) fn weight(self, shares: u32, activity: Activity) -> u64 {
        /// What an idle page costs at most: with a tax of 100 per cent the formula has no value.
        const MOST_COST: f64 = 1000.0;
        /// Weights are whole numbers, so shares are scaled up.
        const SCALE: f64 = 1000.0;
        let cost = (100.0 / (100.0 - f64::from(self.0))).min(MOST_COST);
        let active = activity.part();
        let weight = f64::from(shares) * SCALE / (active + cost * (1.0 - active));
        #[allow(clippy::cast_possible_truncation, reason = "shares are 32 bits, and the divisor is at least 1")]
        let weight = weight as u64;
        weight
    }
}

impl TryFrom<u8> for IdleTax {
    type Error = BadTax;

    fn try_from(percent: u8) -> Result<Self, BadTax> {
        Self::new(percent)
    }
}

impl From<IdleTax> for u8 {
    fn from(tax: IdleTax) -> Self {
        tax.percent()
    }
}

impl Default for IdleTax {
    fn default() -> Self {
        Self(75)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            headroom: FrameCount::from_mib(8),
            headroom_divisor: 32,
            dead_band: FrameCount::from_mib(4),
            patience: Duration::from_millis(300),
            idle_tax: IdleTax::default(),
        }
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
    use super::{Activity, BadTax, IdleTax, huge_ceil, huge_floor};
    use aerostat_abi::units::FrameCount;

    fn weight(percent: u8, active: u64) -> u64 {
        IdleTax::new(percent).unwrap().weight(1000, Activity::of(FrameCount(active), FrameCount(100)))
    }

    #[test]
    fn idle_memory_costs_more() {
        assert_eq!(weight(75, 100), 1_000_000);
        assert_eq!(weight(75, 0), 250_000, "an idle page costs as much as four active ones");
        assert_eq!(weight(0, 0), 1_000_000, "without a tax, idle memory costs the same");
        assert_eq!(weight(100, 0), 1000);
        assert_eq!(weight(100, 100), 1_000_000);
        assert_eq!(IdleTax::new(101), Err(BadTax(101)));
    }

    #[test]
    fn rounding_goes_to_huge_frames_and_never_wraps() {
        assert_eq!(huge_ceil(FrameCount(513)), FrameCount(1024));
        assert_eq!(huge_floor(FrameCount(1023)), FrameCount(512));
        assert!(huge_ceil(FrameCount(u64::MAX)) > FrameCount(u64::MAX - 512));
    }
}
