//! How fast the guest's use of memory grows. Pure.
//!
//! Only growth that lasts can be extrapolated: a single large allocation says nothing about the
//! next one. So the rate is the lowest of the last intervals.

use aerostat_abi::units::FrameCount;

use crate::time::Instant;

/// The length of an interval, and how many have to grow.
const INTERVAL_NS: u64 = 250_000_000;
const INTERVALS: usize = 4;
/// An interval so much longer than it should be says nothing: the guest slept.
const LONGEST_NS: u64 = 4 * INTERVAL_NS;

/// The growth of the last intervals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    last: Option<(Instant, FrameCount)>,
    /// Frames a second.
    rates: [u64; INTERVALS],
}

impl Growth {
    pub(super) const fn new() -> Self {
        Self { last: None, rates: [0; INTERVALS] }
    }

    /// Notes that the guest uses `used` frames.
    pub(super) fn observe(&mut self, used: FrameCount, now: Instant) {
        let Some((since, before)) = self.last else {
            self.last = Some((now, used));
            return;
        };
        let elapsed = now.since(since);
        if elapsed < INTERVAL_NS {
            return;
        }
        self.last = Some((now, used));
        if elapsed > LONGEST_NS {
            self.rates = [0; INTERVALS];
            return;
        }
        let grown = used.saturating_sub(before).0;
        self.rates.rotate_left(1);
        self.rates[INTERVALS - 1] = grown.saturating_mul(1_000_000_000) / elapsed;
    }

    /// Returns by how much the use grows in this time, if it goes on as it did.
    pub(super) fn within(&self, nanoseconds: u64) -> FrameCount {
        let rate = self.rates.into_iter().min().unwrap_or(0);
        let frames = u128::from(rate) * u128::from(nanoseconds) / 1_000_000_000;
        FrameCount(u64::try_from(frames).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::{Growth, INTERVAL_NS};
    use crate::time::Instant;
    use aerostat_abi::units::FrameCount;

    /// Returns the growth that is foreseen for a second after these uses, an interval apart.
    fn foreseen(used: &[u64]) -> u64 {
        let mut growth = Growth::new();
        for (at, used) in used.iter().enumerate() {
            growth.observe(FrameCount(*used), Instant::from_nanos(at as u64 * INTERVAL_NS));
        }
        growth.within(1_000_000_000).0
    }

    #[test]
    fn growth_that_lasts_is_extrapolated() {
        assert_eq!(foreseen(&[0, 100, 200, 300, 400]), 400);
        assert_eq!(foreseen(&[0, 100, 220, 300, 500]), 320, "the slowest interval counts");
    }

    #[test]
    fn a_jump_is_no_growth_that_lasts() {
        assert_eq!(foreseen(&[0, 0, 9000, 9000, 9000]), 0);
        assert_eq!(foreseen(&[500, 400, 300, 200, 100]), 0);
        assert_eq!(foreseen(&[0, 100, 200]), 0, "it has not lasted yet");
    }

    #[test]
    fn a_guest_that_slept_begins_anew() {
        let mut growth = Growth::new();
        for at in 0..5 {
            growth.observe(FrameCount(at * 100), Instant::from_nanos(at * INTERVAL_NS));
        }
        growth.observe(FrameCount(9000), Instant::from_nanos(60_000_000_000));
        assert_eq!(growth.within(1_000_000_000), FrameCount::ZERO);
    }
}
