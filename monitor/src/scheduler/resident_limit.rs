//! The limit of a guest's resident memory: which one its VMM process may still act on. Pure.
//!
//! A process acknowledges a limit by its value. At most one is on its way at a time, and it differs
//! from the one before, so a value names one limit. Until it is acknowledged, both count. No time
//! is involved.

use aerostat_abi::units::FrameCount;

/// The limits of one guest; `None` stands for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResidentLimit {
    /// The last one that the process has acknowledged.
    acknowledged: Option<FrameCount>,
    /// The last one that was sent.
    sent: Option<FrameCount>,
}

impl ResidentLimit {
    /// Returns the limit that is to be sent for `wanted`, if one is: none while another one is on
    /// its way.
    pub fn send(&mut self, wanted: Option<FrameCount>) -> Option<Option<FrameCount>> {
        if !self.is_acknowledged() || wanted == self.sent {
            return None;
        }
        self.sent = wanted;
        Some(wanted)
    }

    /// Takes a limit back that is on its way to a process which was under none, and can't be under
    /// one.
    pub fn withdraw(&mut self) {
        if self.acknowledged.is_none() {
            self.sent = None;
        }
    }

    /// Records what the process acknowledges. A limit that is not on its way changes nothing.
    pub fn acknowledge(&mut self, limit: Option<FrameCount>) {
        if limit == self.sent {
            self.acknowledged = limit;
        }
    }

    /// Returns whether the process acts on no limit but the last one.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.sent
    }

    /// Returns the last limit that was sent.
    #[must_use]
    pub fn sent(&self) -> Option<FrameCount> {
        self.sent
    }

    /// Returns the largest limit that the process may still act on; `None` where it may act on
    /// none.
    #[must_use]
    pub fn largest(&self) -> Option<FrameCount> {
        Some(self.acknowledged?.max(self.sent?))
    }
}

#[cfg(test)]
mod tests {
    use super::ResidentLimit;
    use aerostat_abi::units::FrameCount;
    use proptest::{collection::vec, prop_assert, proptest};

    const fn limit(frames: u64) -> Option<FrameCount> {
        Some(FrameCount(frames))
    }

    #[test]
    fn a_limit_counts_once_it_is_acknowledged() {
        let mut limits = ResidentLimit::default();
        assert_eq!(limits.send(None), None, "there is none");
        assert_eq!(limits.send(limit(70)), Some(limit(70)));
        assert_eq!((limits.largest(), limits.is_acknowledged()), (None, false));
        assert_eq!(limits.send(limit(40)), None, "one at a time");
        limits.acknowledge(limit(40));
        assert_eq!(limits.largest(), None, "that was not sent");
        limits.acknowledge(limit(70));
        assert_eq!(limits.largest(), limit(70));
        assert_eq!(limits.send(limit(40)), Some(limit(40)));
        assert_eq!(limits.largest(), limit(70), "the process may still act on the old one");
        limits.acknowledge(limit(70));
        assert_eq!(limits.largest(), limit(70));
        limits.acknowledge(limit(40));
        assert_eq!(limits.largest(), limit(40));
        assert_eq!(limits.send(None), Some(None));
        assert_eq!(limits.largest(), None, "a limit that is lifted limits nothing from then on");
    }

    #[test]
    fn a_limit_is_withdrawn_only_from_a_process_that_was_under_none() {
        let mut limits = ResidentLimit::default();
        limits.send(limit(70));
        limits.withdraw();
        assert!(limits.is_acknowledged());
        assert_eq!((limits.sent(), limits.largest()), (None, None));
        limits.send(limit(70));
        limits.acknowledge(limit(70));
        limits.withdraw();
        assert_eq!(limits.largest(), limit(70), "what it frees may be granted to others already");
    }

    proptest! {
        /// A process acts on the limits in their order, each some time after it was sent.
        #[test]
        fn the_largest_bounds_what_the_process_acts_on(steps in vec((1_u64..5, 0_u64..3), 1..60)) {
            let mut limits = ResidentLimit::default();
            let (mut sent, mut acts_on) = (vec![None], 0);
            for (wanted, progress) in steps {
                let wanted = Some(wanted).filter(|frames| *frames > 1).map(FrameCount);
                sent.extend(limits.send(wanted));
                acts_on = (acts_on + usize::from(progress == 0)).min(sent.len() - 1);
                limits.acknowledge(sent[acts_on]);
                let in_force = sent[acts_on..].iter().map(|limit| limit.map_or(u64::MAX, |limit| limit.0)).max();
                prop_assert!(limits.largest().map_or(u64::MAX, |limit| limit.0) >= in_force.unwrap());
            }
        }
    }
}
