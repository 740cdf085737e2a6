//! The size that a guest was told to have, and others who tell it too. Pure.
//!
//! QEMU keeps the last size that any program has set, and does not say which one. A guest that had
//! come to our target and then leaves it was either told by another program (`virsh setmem`), or
//! deflated its balloon since it lacked memory. Neither is fought: it is reported once, and the
//! target is sent again when it changes, or when the guest has been away from it for [`PATIENCE`].

use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use crate::clock::Moment;

/// How long a guest may be away from the target before that is sent again.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A guest this close to its target has come to it.
const NEAR: FrameCount = FrameCount(HUGE_FRAMES);

/// What the supervisor wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Order {
    target: FrameCount,
    epoch: Epoch,
}

/// How a guest stands to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none, or it was not sent.
    Unsent,
    /// It was sent, and QEMU has not answered.
    Sent,
    /// QEMU has set it, and the guest moves.
    Set,
    /// The guest has come to it.
    Reached,
    /// The guest has left it.
    Left { since: Moment },
}

/// The target of one guest.
#[derive(Debug)]
pub(super) struct Target {
    order: Option<Order>,
    stage: Stage,
    acknowledged: Epoch,
    /// Whether it was reported that the guest left it.
    is_reported: bool,
}

/// A guest has left its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) target: FrameCount,
    pub(super) size: FrameCount,
}

impl Target {
    /// Creates the target of a guest that keeps its size until it is told another, or that has to
    /// be told its `first`.
    pub(super) fn new(first: Option<FrameCount>) -> Self {
        let order = first.map(|target| Order { target, epoch: Epoch::FIRST });
        Self { order, stage: Stage::Unsent, acknowledged: Epoch::FIRST, is_reported: false }
    }

    /// Sets what the guest is to have.
    pub(super) fn order(&mut self, target: FrameCount, epoch: Epoch) {
        self.order = Some(Order { target, epoch });
        self.stage = Stage::Unsent;
        self.is_reported = false;
    }

    /// Returns the latest epoch before which no target is acted on any more.
    pub(super) fn acknowledged(&self) -> Epoch {
        self.acknowledged
    }

    /// Returns what is to be sent now, and counts it as sent.
    pub(super) fn take(&mut self, now: Moment) -> Option<FrameCount> {
        let order = self.order?;
        match self.stage {
            Stage::Unsent => {}
            Stage::Left { since } if now.since(since) >= PATIENCE => {}
            Stage::Sent | Stage::Set | Stage::Reached | Stage::Left { .. } => return None,
        }
        self.stage = Stage::Sent;
        Some(order.target)
    }

    /// Returns when [`Self::take`] returns something without an order.
    pub(super) fn due(&self) -> Option<Moment> {
        match self.stage {
            Stage::Left { since } => Some(since.after(PATIENCE)),
            _ => None,
        }
    }

    /// Records that QEMU has answered to `target`; or that the guest has no balloon, so that no
    /// target can be acted on.
    pub(super) fn set(&mut self, target: FrameCount) {
        let Some(order) = self.order.filter(|order| order.target == target) else { return };
        self.acknowledged = order.epoch;
        if self.stage == Stage::Sent {
            self.stage = Stage::Set;
        }
    }

    /// Records that the connection was lost: what was sent may not have arrived.
    pub(super) fn disconnected(&mut self) {
        if self.stage == Stage::Sent {
            self.stage = Stage::Unsent;
        }
    }

    /// Notes the guest's size. Returns a departure from the target, once for each target.
    pub(super) fn observe(&mut self, size: FrameCount, now: Moment) -> Option<Departure> {
        let target = self.order?.target;
        let is_near = size.0.abs_diff(target.0) < NEAR.0;
        match self.stage {
            Stage::Set | Stage::Left { .. } if is_near => {
                self.stage = Stage::Reached;
                None
            }
            Stage::Reached if !is_near => {
                self.stage = Stage::Left { since: now };
                let is_new = !std::mem::replace(&mut self.is_reported, true);
                is_new.then_some(Departure { target, size })
            }
            _ => None,
        }
    }

    /// Returns whether the guest is on its way to the target.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.stage, Stage::Sent | Stage::Set) || (self.stage == Stage::Unsent && self.order.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::{Departure, PATIENCE, Target};
    use crate::clock::Moment;
    use aerostat_abi::registers::Epoch;
    use aerostat_abi::units::FrameCount;

    const fn mib(mib: u64) -> FrameCount {
        FrameCount::from_mib(mib)
    }

    const fn at(s: u64) -> Moment {
        Moment::from_ns(s * 1_000_000_000)
    }

    /// A guest of 512 MiB that has come to its target.
    fn reached() -> Target {
        let mut target = Target::new(None);
        target.order(mib(512), Epoch(2));
        assert_eq!(target.take(at(0)), Some(mib(512)));
        target.set(mib(512));
        assert_eq!(target.observe(mib(700), at(1)), None, "it is on its way");
        assert!(target.is_moving());
        assert_eq!(target.observe(mib(512), at(2)), None);
        assert!(!target.is_moving());
        target
    }

    #[test]
    fn a_target_is_sent_once_and_acknowledged_when_it_is_set() {
        let mut target = Target::new(None);
        assert_eq!((target.take(at(0)), target.acknowledged()), (None, Epoch::FIRST));
        target.order(mib(512), Epoch(2));
        target.order(mib(600), Epoch(3));
        assert_eq!((target.take(at(0)), target.take(at(9999))), (Some(mib(600)), None));
        target.set(mib(512));
        assert_eq!(target.acknowledged(), Epoch::FIRST, "the answer to another target");
        target.set(mib(600));
        assert_eq!(target.acknowledged(), Epoch(3));
    }

    #[test]
    fn a_target_that_may_have_been_lost_is_sent_again() {
        let mut target = Target::new(Some(mib(64)));
        assert_eq!(target.take(at(0)), Some(mib(64)));
        target.disconnected();
        assert_eq!(target.take(at(1)), Some(mib(64)));
        target.set(mib(64));
        target.disconnected();
        assert_eq!(target.take(at(1)), None, "QEMU has it");
    }

    #[test]
    fn another_program_is_not_fought() {
        let mut target = reached();
        assert_eq!(target.observe(mib(400), at(10)), Some(Departure { target: mib(512), size: mib(400) }));
        assert_eq!((target.take(at(10)), target.due()), (None, Some(at(10).after(PATIENCE))));
        assert_eq!((target.observe(mib(300), at(12)), target.take(at(39))), (None, None));
        assert_eq!(target.take(at(40)), Some(mib(512)), "after a while, once");
        target.set(mib(512));
        assert_eq!((target.observe(mib(512), at(41)), target.observe(mib(400), at(42))), (None, None), "reported");
        target.order(mib(256), Epoch(3));
        assert_eq!(target.take(at(43)), Some(mib(256)), "a new target is sent at once");
    }

    #[test]
    fn what_the_guest_stops_short_of_is_no_departure() {
        let mut target = Target::new(None);
        target.order(mib(512), Epoch(2));
        let _ = target.take(at(0));
        target.set(mib(512));
        assert_eq!([600, 560, 700].map(|size| target.observe(mib(size), at(99))), [None; 3]);
    }
}
