//! How the driver follows targets, in both directions.

use aerostat_abi::units::{BlockSize, FrameCount, HUGE_FRAMES};

use super::{FLOOR, Fixture, SECOND_NS, TOTAL};
use crate::driver::Next;
use crate::pace::PAUSE_GOAL_NS;
use crate::state::{Failure, StallReason};
use crate::testing::Behaviour;

#[test]
fn a_driver_without_a_new_target_is_idle() {
    let mut fixture = Fixture::new(FLOOR.0);
    assert_eq!(fixture.step(), Next::Idle);
    fixture.host.behaviour = Behaviour::Silent;
    fixture.refresh();
    assert_eq!((fixture.step(), fixture.host.calls), (Next::Idle, 1));
    assert_eq!(fixture.driver.metrics().last_failure, Some(Failure::Silence));
}

#[test]
fn targets_are_bounded_by_floor_and_total() {
    let mut fixture = Fixture::new(0);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (FLOOR, Some(StallReason::Floor)));
    fixture.set_target(u64::MAX);
    assert_eq!(fixture.run(0), Next::Idle);
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (TOTAL, None));
    fixture.check().unwrap();
}

#[test]
fn a_reply_brings_the_new_target() {
    let mut fixture = Fixture::new(TOTAL.0 - 4 * HUGE_FRAMES);
    fixture.host.huge_ns = PAUSE_GOAL_NS; // a batch is a single huge frame after the first
    fixture.refresh();
    assert_eq!(fixture.step(), Next::Rest);
    fixture.host.target = TOTAL;
    let balloon = fixture.balloon();
    assert!(balloon < 4 * HUGE_FRAMES || fixture.driver.size() == fixture.driver.target());
    fixture.set_target(FLOOR.0);
    fixture.host.target = TOTAL;
    assert_eq!(fixture.step(), Next::Rest, "the batch that was under way");
    assert_eq!(fixture.driver.target(), TOTAL, "it heard of it in the reply");
    fixture.host.huge_ns = 0;
    assert_eq!(fixture.run(0), Next::Idle, "and turns round without being asked again");
    assert_eq!(fixture.balloon(), 0);
}

#[test]
fn deflating_has_no_rate_and_frees_unbacked_memory() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    for _ in 0..20 {
        fixture.driver.gate.rate.failed();
    }
    fixture.set_target(TOTAL.0);
    assert_eq!(fixture.run(0), Next::Idle, "no rate applies");
    assert_eq!(fixture.driver.size(), TOTAL);
    assert_eq!(fixture.memory.deflated, TOTAL.0 - FLOOR.0, "as memory that the host does not back");
}

/// The host reclaims offered memory without the guest, which notes it at its next step; also at the
/// beginning of a session.
#[test]
fn memory_reclaimed_by_the_host_is_in_the_balloon() {
    for orders_reset in [false, true] {
        let mut fixture = Fixture::new(TOTAL.0 - HUGE_FRAMES);
        let block = fixture.memory.free.take(BlockSize::Huge).unwrap();
        fixture.host.ballooned.put(&block);
        fixture.memory.reclaimed.push(block);
        fixture.host.orders_reset = orders_reset;
        assert_eq!((fixture.run(SECOND_NS), fixture.balloon()), (Next::Idle, HUGE_FRAMES));
        assert_eq!(fixture.driver.refused_entries(), 0, "it was not asked back for want of the new target");
        fixture.check().unwrap();
    }
}

#[test]
fn a_guest_that_lacks_memory_exceeds_its_target_for_a_while_where_that_is_permitted() {
    let target = TOTAL.0 / 2;
    let mut fixture = Fixture::new(target);
    fixture.host.behaviour = Behaviour::PermitsAll;
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    fixture.driver.relieve(FrameCount(HUGE_FRAMES), fixture.clock.now_ns());
    let Next::Wait { until_ns } = fixture.run(SECOND_NS) else { panic!("the relief ends") };
    assert!(until_ns > fixture.clock.now_ns() + SECOND_NS);
    assert_eq!(fixture.driver.size().0, target + HUGE_FRAMES);
    assert_eq!(fixture.driver.stall_reason(), Some(StallReason::GuestWaiting));
    fixture.clock.wait_until(until_ns);
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!((fixture.driver.size().0, fixture.driver.stall_reason()), (target, None), "and it inflates again");
}

#[test]
fn a_relief_never_exceeds_the_machine_and_ends_with_a_higher_target() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.host.behaviour = Behaviour::PermitsAll;
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.driver.relieve(FrameCount(u64::MAX / 2), fixture.clock.now_ns());
    assert_eq!(fixture.driver.target(), TOTAL);
    assert!(matches!(fixture.run(SECOND_NS), Next::Wait { .. }));
    assert_eq!(fixture.driver.size(), TOTAL);
    fixture.set_target(TOTAL.0);
    assert_eq!((fixture.run(SECOND_NS), fixture.driver.stall_reason()), (Next::Idle, None), "the host grants it");
}
