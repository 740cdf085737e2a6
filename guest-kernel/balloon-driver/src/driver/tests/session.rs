//! Sessions: what both sides make of each other's view of the balloon.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::{FLOOR, Fixture, SECOND_NS, TOTAL};
use crate::driver::Next;
use crate::driver::session::Stage;
use crate::rate::RateLimits;
use crate::state::Failure;
use crate::testing::Behaviour;

#[test]
fn the_initial_balloon_is_claimed() {
    let mut fixture = Fixture::with(TOTAL, RateLimits::DEFAULT);
    (4 * HUGE_FRAMES..TOTAL.0).for_each(|frame| fixture.host.ballooned.insert(frame));
    fixture.host.target = FrameCount(4 * HUGE_FRAMES);
    assert!(fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    assert_eq!((fixture.driver.size(), fixture.step()), (FrameCount(4 * HUGE_FRAMES), Next::Idle));
    fixture.check().unwrap();
    fixture.set_target(TOTAL.0);
    assert_eq!((fixture.run(0), fixture.balloon()), (Next::Idle, 0));
}

#[test]
fn begin_fails_where_the_monitor_does_not_answer() {
    let mut fixture = Fixture::with(TOTAL, RateLimits::DEFAULT);
    fixture.host.behaviour = Behaviour::Silent;
    assert!(!fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    assert_eq!(fixture.host.calls, 1);
}

#[test]
fn a_session_of_another_driver_is_reset_first() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.driver.session.stage = Stage::Ended;
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.driver.size(), FLOOR);
    fixture.check().unwrap();
}

/// A batch that was carried out though its reply was lost: the host has frames that the guest uses.
#[test]
fn both_sides_agree_on_the_balloon_after_a_reset() {
    let mut fixture = Fixture::new(FLOOR.0 + 4 * HUGE_FRAMES);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.host.behaviour = Behaviour::LosesReplies;
    fixture.set_target(FLOOR.0);
    fixture.step();
    assert!(fixture.host.ballooned.len() > fixture.driver.balloon());
    fixture.memory.use_frames(3 * HUGE_FRAMES);
    fixture.host.behaviour = Behaviour::Honest;
    fixture.host.orders_reset = true;
    fixture.refresh();
    fixture.run(SECOND_NS);
    let disputed = fixture.driver.disputed().0;
    assert!(disputed > 0, "the guest uses some of the frames that the host counts as ballooned");
    assert_eq!(fixture.driver.balloon().0 + disputed, fixture.host.ballooned.len().0);
    fixture.check_places().unwrap();
    fixture.set_target(TOTAL.0);
    assert_eq!(fixture.run(3 * SECOND_NS), Next::Idle);
    assert_eq!((fixture.driver.disputed(), fixture.driver.size()), (FrameCount::ZERO, TOTAL));
    fixture.check().unwrap();
}

#[test]
fn unlisted_frames_are_the_guests() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.host.behaviour = Behaviour::ListsNothing;
    fixture.host.target = TOTAL;
    fixture.host.orders_reset = true;
    fixture.refresh();
    assert_eq!((fixture.run(SECOND_NS), fixture.balloon()), (Next::Idle, 0));
    fixture.check().unwrap();
}

#[test]
fn a_list_of_all_memory_does_not_break_the_floor() {
    let mut fixture = Fixture::new(TOTAL.0);
    fixture.memory.use_frames(HUGE_FRAMES);
    fixture.host.behaviour = Behaviour::ListsAll;
    fixture.host.orders_reset = true;
    fixture.refresh();
    fixture.host.target = FrameCount(0);
    fixture.run(SECOND_NS);
    assert!(fixture.balloon() <= TOTAL.0 - FLOOR.0, "the floor is kept: {} frames", fixture.balloon());
    fixture.check_places().unwrap();
}

#[test]
fn an_unsound_list_changes_nothing() {
    for kind in 0..8 {
        let mut fixture = Fixture::new(TOTAL.0 - HUGE_FRAMES);
        fixture.refresh();
        fixture.run(SECOND_NS);
        fixture.host.behaviour = Behaviour::ListsNonsense(kind);
        fixture.host.orders_reset = true;
        fixture.refresh();
        fixture.run(SECOND_NS);
        assert_eq!(fixture.driver.metrics().last_failure, Some(Failure::List), "{kind}");
        fixture.check().unwrap();
    }
}
