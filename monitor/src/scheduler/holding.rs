//! What one guest holds of the pool: the side of the books that must never be too low.
//!
//! *Held* is the largest of the guest's target, its size, its resident memory, and every target lowered so recently that the
//! guest's VMM process may still act on it. Lowering a target therefore frees nothing by itself; memory is free when the guest's
//! size *and* its resident memory have fallen and the old target has settled.

use std::collections::VecDeque;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::contract::GuestSample;
use crate::clock::Moment;

/// One guest's target, past and present, and its measured counts.
#[derive(Debug)]
pub(super) struct Holding {
    target: FrameCount,
    /// Targets that were lowered, each with the moment until which it counts; the latest last.
    settling: VecDeque<(FrameCount, Moment)>,
    size: FrameCount,
    resident: FrameCount,
}

impl Holding {
    pub(super) fn new(target: FrameCount) -> Self {
        Self { target, settling: VecDeque::new(), size: FrameCount::ZERO, resident: FrameCount::ZERO }
    }

    pub(super) fn target(&self) -> FrameCount {
        self.target
    }

    pub(super) fn observe(&mut self, sample: &GuestSample) {
        self.size = sample.size;
        self.resident = sample.resident;
    }

    /// Raises the target to `target`; the caller has made sure that the pool has what [`Self::held`] grows by.
    pub(super) fn raise(&mut self, target: FrameCount) {
        debug_assert!(target >= self.target, "a raise raises");
        self.target = target;
    }

    /// Lowers the target; the old one counts until `settle` has passed.
    pub(super) fn lower(&mut self, target: FrameCount, now: Moment, settle: Duration) {
        debug_assert!(target <= self.target, "a lowering lowers");
        self.settling.push_back((self.target, now.after(settle)));
        self.target = target;
    }

    /// Frames of the pool that the guest holds at `now`.
    pub(super) fn held(&mut self, now: Moment) -> FrameCount {
        while self.settling.front().is_some_and(|&(_, until)| until <= now) {
            self.settling.pop_front();
        }
        let settling = self.settling.iter().map(|&(target, _)| target).max().unwrap_or_default();
        self.target.max(settling).max(self.size).max(self.resident)
    }
}

#[cfg(test)]
mod tests {
    use super::Holding;
    use crate::clock::Moment;
    use crate::scheduler::contract::{GuestSample, Hints};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    const SETTLE: Duration = Duration::from_nanos(10);

    fn sample(size: u64, resident: u64) -> GuestSample {
        GuestSample { size: FrameCount(size), resident: FrameCount(resident), hints: Hints::None }
    }

    #[test]
    fn a_lowered_target_frees_nothing_before_it_settled() {
        let mut holding = Holding::new(FrameCount(100));
        holding.observe(&sample(60, 50));
        holding.lower(FrameCount(60), Moment::from_ns(0), SETTLE);
        holding.lower(FrameCount(40), Moment::from_ns(5), SETTLE);
        assert_eq!(holding.held(Moment::from_ns(9)), FrameCount(100));
        assert_eq!(holding.held(Moment::from_ns(10)), FrameCount(60));
        holding.observe(&sample(40, 50));
        assert_eq!(holding.held(Moment::from_ns(20)), FrameCount(50), "resident memory has not fallen yet");
        holding.observe(&sample(40, 40));
        assert_eq!(holding.held(Moment::from_ns(20)), FrameCount(40));
    }
}
