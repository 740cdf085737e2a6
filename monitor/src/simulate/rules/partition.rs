//! Rules that split the whole pool by a weight.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::{Observed, Rule};
use crate::clock::Moment;
use crate::simulate::scaled;

/// Fixed sizes in proportion to the maxima, as an administrator without balloons sizes machines.
#[derive(Debug)]
pub struct PartsByMaximum {
    /// The memory to split.
    pub pool: FrameCount,
}

/// Equal sizes, as far as minima and maxima allow.
#[derive(Debug)]
pub struct EqualParts {
    /// The memory to split.
    pub pool: FrameCount,
}

/// Sizes in proportion to what guests use and wait for.
#[derive(Debug)]
pub struct ProportionalToDemand {
    /// The memory to split.
    pub pool: FrameCount,
}

impl Rule for PartsByMaximum {
    fn name(&self) -> &'static str {
        "parts by maximum"
    }

    fn decide(&mut self, guests: &[Observed], _: Moment) -> Vec<FrameCount> {
        split(self.pool, guests, |guest| guest.limits.max)
    }
}

impl Rule for EqualParts {
    fn name(&self) -> &'static str {
        "equal parts"
    }

    fn decide(&mut self, guests: &[Observed], _: Moment) -> Vec<FrameCount> {
        split(self.pool, guests, |_| FrameCount(1))
    }
}

impl Rule for ProportionalToDemand {
    fn name(&self) -> &'static str {
        "proportional to demand"
    }

    fn decide(&mut self, guests: &[Observed], _: Moment) -> Vec<FrameCount> {
        split(self.pool, guests, |guest| {
            let usage = guest.usage();
            usage.used.saturating_add(usage.wanted)
        })
    }
}

/// Splits `pool` in proportion to the weights, each part within its guest's limits and in whole
/// huge frames. The parts add up to the pool less rounding, unless all guests are at their maximum.
///
/// The factor between weight and part is found by bisection: the sum of the parts grows with it.
fn split(pool: FrameCount, guests: &[Observed], weight: impl Fn(&Observed) -> FrameCount) -> Vec<FrameCount> {
    const STEPS: u32 = 50;
    let part = |guest: &Observed, factor: f64| -> FrameCount {
        let share = scaled(weight(guest).max(FrameCount(1)), factor);
        FrameCount(share.0 - share.0 % HUGE_FRAMES).max(guest.limits.min).min(guest.limits.max)
    };
    let sum = |factor: f64| guests.iter().map(|guest| part(guest, factor).0).fold(0, u64::saturating_add);
    // With the upper bound even the smallest weight gets the whole pool.
    let (mut low, mut high) = (0.0, pool.0 as f64 + 1.0);
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if sum(middle) <= pool.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    guests.iter().map(|guest| part(guest, low)).collect()
}
