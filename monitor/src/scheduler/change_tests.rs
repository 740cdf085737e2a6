//! Changes that a user makes at run time: limits, the size of the pool, and fixed targets.

use super::test_fleet::{Fleet, mib, shares};
use super::{AdmissionError, GuestId, Limits, Reason, Shares, Subscription};

const A: GuestId = GuestId(0);
const B: GuestId = GuestId(1);

fn limits(min_mib: u64, max_mib: u64) -> Limits {
    Limits { min: mib(min_mib), max: mib(max_mib) }
}

/// Two guests that would fill the pool each.
fn busy_fleet(pool_mib: u64) -> Fleet {
    let mut fleet = Fleet::with_tax(pool_mib, 75);
    fleet.admit(900, Subscription::default());
    fleet.admit(900, Subscription::default());
    fleet.run(100);
    fleet
}

#[test]
fn new_limits_take_effect_with_the_next_decision() {
    let mut fleet = busy_fleet(512);
    fleet.scheduler.change(A, limits(16, 100), Subscription::default()).unwrap();
    assert_eq!(fleet.run(1)[0].reason, Reason::LimitsChanged);
    assert_eq!(fleet.targets()[0], 100);
    fleet.run(100);
    assert_eq!(fleet.targets(), [100, 412]);
    fleet.scheduler.change(A, limits(300, 400), Subscription::default()).unwrap();
    fleet.run(100);
    assert_eq!(fleet.targets(), [300, 212]);
    fleet.scheduler.change(A, limits(16, 1024), shares("low")).unwrap();
    fleet.run(100);
    let [low, normal] = fleet.targets()[..] else { panic!("two guests") };
    assert!(low.abs_diff(normal / 2) <= 2, "{low} and {normal}");
}

#[test]
fn a_minimum_that_rises_a_little_is_honoured() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(4, Subscription::default());
    fleet.run(100);
    let target = fleet.targets()[0];
    fleet.scheduler.change(A, limits(target + 2, 1024), Subscription::default()).unwrap();
    fleet.run(1);
    assert_eq!(fleet.targets(), [target + 2]);
}

#[test]
fn guarantees_beyond_the_pool_are_refused_and_change_nothing() {
    let mut fleet = busy_fleet(512);
    let reserved = Subscription { shares: Shares::HIGH, reservation: mib(500) };
    let refused = AdmissionError::GuaranteesExceedPool { guaranteed: mib(516), pool: mib(512) };
    assert_eq!(fleet.scheduler.change(A, limits(32, 1024), reserved), Err(refused));
    let refused = AdmissionError::GuaranteesExceedPool { guaranteed: mib(32), pool: mib(30) };
    assert_eq!(fleet.scheduler.resize(mib(30)), Err(refused));
    let decisions = fleet.run(100);
    assert_eq!(fleet.targets(), [256, 256]);
    assert!(decisions.iter().all(|decision| !decision.is_change()));
    fleet.scheduler.change(A, limits(16, 1024), Subscription { reservation: mib(496), ..reserved }).unwrap();
    fleet.scheduler.change(A, limits(16, 1024), Subscription { reservation: mib(496), ..reserved }).unwrap();
}

#[test]
fn a_pool_that_shrinks_is_released_and_one_that_grows_is_used() {
    let mut fleet = busy_fleet(512);
    fleet.scheduler.resize(mib(100)).unwrap();
    let decisions = fleet.run(1);
    assert!(decisions.iter().all(|decision| decision.target < decision.from), "{decisions:?}");
    fleet.run(100);
    assert_eq!(fleet.targets(), [50, 50]);
    fleet.scheduler.resize(mib(700)).unwrap();
    fleet.run(100);
    assert_eq!(fleet.targets(), [350, 350]);
}

#[test]
fn guests_make_room_for_one_that_is_to_start() {
    for needs in (100..=230).step_by(2) {
        let mut fleet = Fleet::with_tax(224, 75);
        fleet.admit_with(limits(32, 192), needs, Subscription::default());
        fleet.run(100);
        fleet.scheduler.set_awaited(mib(48));
        fleet.run(100);
        let free = fleet.scheduler.free();
        assert!(free >= mib(48), "a guest that needs {needs} MiB leaves {free}");
    }
}

#[test]
fn a_pool_that_shrinks_by_less_than_a_dead_band_is_released() {
    let mut fleet = busy_fleet(512);
    fleet.scheduler.resize(mib(508)).unwrap();
    fleet.run(3);
    assert_eq!(fleet.targets().iter().sum::<u64>(), 508);
}

#[test]
fn a_pinned_guest_is_lowered_at_once_and_keeps_its_target() {
    let mut fleet = busy_fleet(512);
    fleet.scheduler.pin(A, Some(mib(65)));
    let decisions = fleet.run(1);
    assert_eq!((fleet.targets()[0], decisions[0].reason), (64, Reason::Pinned), "in whole huge frames");
    let decisions = fleet.run(100);
    assert_eq!((fleet.targets(), decisions[0].reason), (vec![64, 448], Reason::Pinned));
    fleet.scheduler.pin(A, None);
    fleet.run(100);
    assert_eq!(fleet.targets(), [256, 256]);
}

#[test]
fn a_pinned_guest_is_raised_from_what_others_release() {
    let mut fleet = busy_fleet(512);
    fleet.guests[0].needs = mib(20);
    fleet.run(200);
    fleet.scheduler.pin(A, Some(mib(400)));
    let held = |fleet: &Fleet| 512 - fleet.scheduler.free().mib();
    for _ in 0..100 {
        fleet.run(1);
        assert!(held(&fleet) <= 512 && fleet.targets().iter().sum::<u64>() <= 512, "{:?}", fleet.targets());
    }
    assert_eq!(fleet.targets(), [400, 112]);
    assert_eq!(fleet.run(1)[0].reason, Reason::Pinned);
}

#[test]
fn a_pin_yields_to_guarantees_and_limits() {
    let mut fleet = busy_fleet(512);
    fleet
        .scheduler
        .change(B, limits(16, 1024), Subscription { reservation: mib(300), ..Subscription::default() })
        .unwrap();
    fleet.scheduler.pin(A, Some(mib(4000)));
    fleet.run(100);
    assert_eq!(fleet.targets(), [212, 300]);
    fleet.scheduler.pin(A, Some(mib(1)));
    fleet.run(2);
    assert_eq!(fleet.targets()[0], 16, "the minimum");
}

#[test]
fn changes_of_a_guest_that_was_removed_are_ignored() {
    let mut fleet = busy_fleet(512);
    fleet.scheduler.remove(B);
    fleet.guests.pop();
    fleet.scheduler.pin(B, Some(mib(400)));
    fleet.scheduler.change(B, limits(16, 64), Subscription::default()).unwrap();
    fleet.run(10);
    assert_eq!(fleet.targets().len(), 1);
}
