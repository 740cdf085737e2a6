//! A guest's targets by epoch: which of them its VMM process may still act on. Pure.
//!
//! Every target that is set has an epoch, one more than the last. The process acknowledges an epoch
//! once it acts on no target before it any more. Until then the guest may still grow to each target
//! since the one last acknowledged, however long that takes: the process may have been stopped
//! between reading a target and acting on it. No time is involved.

use std::collections::VecDeque;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;

/// The targets of one guest since the last that was acknowledged.
#[derive(Debug)]
pub struct Targets {
    latest: Epoch,
    acknowledged: Epoch,
    /// Never empty, and each target is smaller than the one before: a target does not matter beside
    /// a later one that is at least as large. A later one that has replaced others has the epoch of
    /// the first of these.
    row: VecDeque<(Epoch, FrameCount)>,
}

/// The process has acknowledged a target that was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureEpoch;

impl Targets {
    /// Creates the targets of a guest that starts with `target`.
    #[must_use]
    pub fn new(target: FrameCount) -> Self {
        Self::since(target, Epoch::FIRST)
    }

    /// Creates the targets of a guest for which `target` was set in `epoch`, and that acts on none
    /// before it.
    #[must_use]
    pub fn since(target: FrameCount, epoch: Epoch) -> Self {
        Self { latest: epoch, acknowledged: epoch, row: VecDeque::from([(epoch, target)]) }
    }

    /// Records that `target` is set, and returns its epoch, the next one.
    pub fn set(&mut self, target: FrameCount) -> Epoch {
        self.latest = self.latest.next();
        let mut since = self.latest;
        while let Some((epoch, _)) = self.row.pop_back_if(|(_, before)| *before <= target) {
            since = epoch;
        }
        self.row.push_back((since, target));
        self.latest
    }

    /// Records what the process acknowledges. An epoch that was acknowledged already changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`FutureEpoch`]: a correct process never acknowledges that.
    pub fn acknowledge(&mut self, epoch: Epoch) -> Result<(), FutureEpoch> {
        if epoch > self.latest {
            return Err(FutureEpoch);
        }
        self.acknowledged = self.acknowledged.max(epoch);
        while self.row.get(1).is_some_and(|&(since, _)| since <= epoch) {
            self.row.pop_front();
        }
        Ok(())
    }

    /// Returns whether the process acts on no target but the last one.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.latest
    }

    /// Returns the largest target that the process may still act on.
    #[must_use]
    pub fn largest(&self) -> FrameCount {
        self.row.front().map_or(FrameCount::ZERO, |&(_, target)| target)
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, FutureEpoch, Targets};
    use aerostat_abi::units::FrameCount;
    use proptest::{collection::vec, prop_assert, prop_assert_eq, proptest};

    #[test]
    fn an_old_target_counts_until_a_later_one_is_acknowledged() {
        let mut targets = Targets::new(FrameCount(100));
        targets.set(FrameCount(60));
        targets.set(FrameCount(40));
        assert_eq!(targets.largest(), FrameCount(100));
        targets.acknowledge(Epoch::FIRST).unwrap();
        assert!(!targets.is_acknowledged());
        assert_eq!(targets.largest(), FrameCount(100), "the process may act on what it acknowledges");
        targets.acknowledge(Epoch(2)).unwrap();
        assert_eq!(targets.largest(), FrameCount(60));
        targets.set(FrameCount(50));
        targets.acknowledge(Epoch(4)).unwrap();
        assert!(targets.is_acknowledged());
        assert_eq!(targets.largest(), FrameCount(50));
    }

    #[test]
    fn epochs_go_on() {
        let mut targets = Targets::since(FrameCount(100), Epoch(7));
        assert_eq!(targets.acknowledge(Epoch(8)), Err(FutureEpoch));
        assert_eq!(targets.set(FrameCount(60)), Epoch(8));
        assert_eq!(targets.largest(), FrameCount(100));
        targets.acknowledge(Epoch(8)).unwrap();
        assert_eq!(targets.largest(), FrameCount(60));
    }

    #[test]
    fn nothing_is_acknowledged_ahead_of_time() {
        let mut targets = Targets::new(FrameCount(100));
        targets.set(FrameCount(60));
        assert_eq!(targets.acknowledge(Epoch(3)), Err(FutureEpoch));
        assert_eq!(targets.acknowledge(Epoch(u64::MAX)), Err(FutureEpoch));
        assert_eq!(targets.largest(), FrameCount(100));
        targets.acknowledge(Epoch(2)).unwrap();
        targets.acknowledge(Epoch(0)).unwrap();
        assert_eq!(targets.largest(), FrameCount(60));
    }

    proptest! {
        /// The row is short because it leaves out what can't matter. A list of all targets has the
        /// same largest.
        #[test]
        fn the_largest_is_that_of_all(sets in vec((1_u64..20, 0_usize..4), 0..60)) {
            let mut targets = Targets::new(FrameCount(10));
            let (mut all, mut acknowledged) = (vec![10], 0);
            for (target, steps) in sets {
                targets.set(FrameCount(target));
                all.push(target);
                acknowledged = (acknowledged + steps).min(all.len() - 1);
                targets.acknowledge(Epoch(acknowledged as u64 + 1)).unwrap();
                prop_assert_eq!(Some(&targets.largest().0), all[acknowledged..].iter().max());
                prop_assert!(targets.row.len() <= 20);
            }
        }
    }
}
