//! Guests that run already when the scheduler learns of them.

use aerostat_abi::units::FrameCount;
use proptest::collection::vec;
use proptest::{prop_assert, proptest};

use super::test_fleet::{Fleet, SimpleGuest, mib};
use super::{AdmissionError, Holding, Limits, Subscription, Usage};

const LIMITS: Limits = Limits { min: mib(16), max: mib(1024) };

impl Fleet {
    /// Takes in a guest of this size that could use `needs_mib`.
    fn adopt(&mut self, target_mib: u64, size_mib: u64, needs_mib: u64) {
        let held = Holding { target: mib(target_mib), size: mib(size_mib) };
        let id = self.scheduler.adopt(LIMITS, Subscription::default(), held);
        let (usage, needs, size) = (Usage::default(), mib(needs_mib), held.size);
        self.guests.push(SimpleGuest { id, usage, needs, size, is_stuck: false, is_swapping: false });
    }
}

#[test]
fn a_guest_keeps_its_target_when_it_is_adopted() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.adopt(200, 200, 190);
    fleet.adopt(100, 100, 90);
    assert_eq!((fleet.targets(), fleet.scheduler.free()), (vec![200, 100], mib(212)));
    fleet.run(100);
    let targets = fleet.targets();
    assert!(targets[0] >= 190 && targets[1] >= 90, "{targets:?}");
}

#[test]
fn a_guest_that_is_larger_than_its_target_counts_with_its_size() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.adopt(100, 300, 90);
    assert_eq!(fleet.scheduler.free(), mib(212));
    let refused = fleet.scheduler.admit(Limits { min: mib(214), max: mib(512) }, Subscription::default());
    assert_eq!(refused, Err(AdmissionError::NotFreeNow { min: mib(214), free: mib(212) }));
}

#[test]
fn a_pool_that_guests_overcommit_comes_back_under() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.adopt(400, 400, 900);
    fleet.adopt(400, 400, 900);
    assert_eq!(fleet.scheduler.free(), FrameCount::ZERO);
    fleet.run(100);
    assert_eq!(fleet.targets(), [256, 256]);
}

proptest! {
    /// Whatever guests hold when they are adopted, the sum never grows beyond the larger of the
    /// pool and what they held.
    #[test]
    fn what_is_held_only_falls_to_the_pool(
        guests in vec((8_u64..400, 8_u64..400, 0_u64..500), 1..6),
        pool in 40_u64..400,
    ) {
        let mut fleet = Fleet::with_tax(2 * pool, 75);
        for (target, size, needs) in guests {
            fleet.adopt(2 * target, 2 * size, 2 * needs);
        }
        let mut bound = fleet.scheduler.held().max(mib(2 * pool));
        for _ in 0..60 {
            fleet.run(1);
            let held = fleet.scheduler.held();
            prop_assert!(held <= bound, "{held} of {bound}");
            bound = bound.min(held.max(mib(2 * pool)));
        }
    }
}
