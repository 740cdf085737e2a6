//! Hosts that refuse or do not answer: they are called less often, and their memory moves again as
//! soon as they answer.

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;
use aerostat_abi::units::FrameCount;

use super::{FLOOR, Fixture, SECOND_NS, TOTAL};
use crate::driver::Next;
use crate::state::StallReason;
use crate::testing::Behaviour;

/// The number of calls in a minute in which memory seems to come free and the target changes every
/// millisecond.
fn calls_in_a_minute_of_tumult(fixture: &mut Fixture) -> u64 {
    let before = fixture.host.calls;
    for tick in 0..60_000_u64 {
        fixture.clock.wait_until(tick * 1_000_000);
        fixture.driver.note_freed_memory();
        fixture.host.target = FrameCount(FLOOR.0 + tick % 2);
        for _ in 0..100 {
            match fixture.step() {
                Next::Continue | Next::Rest => {}
                Next::Wait { .. } | Next::Idle => break,
            }
        }
    }
    fixture.host.calls - before
}

#[test]
fn a_host_that_refuses_inflating_is_called_less_often_each_time() {
    for behaviour in [
        Behaviour::Refuses(EntryStatus::HostFailed),
        Behaviour::Forgets,
        Behaviour::Silent,
        Behaviour::Contradicts(Status::BadPage),
    ] {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.host.behaviour = behaviour;
        assert!(matches!(fixture.run(60 * SECOND_NS), Next::Wait { .. }), "{behaviour:?}");
        assert!((60..100).contains(&fixture.host.calls), "{} calls in a minute: {behaviour:?}", fixture.host.calls);
        assert!(fixture.driver.refused_entries() > 0 && fixture.driver.metrics().last_failure.is_some());
        let expected = if behaviour == Behaviour::Silent { StallReason::HostSilent } else { StallReason::Refused };
        assert_eq!(fixture.driver.stall_reason(), Some(expected));
        fixture.check().unwrap();
        let calls = calls_in_a_minute_of_tumult(&mut fixture);
        assert!(calls <= 60 * 110, "{calls} calls in a minute of tumult: {behaviour:?}");

        (fixture.host.behaviour, fixture.host.target) = (Behaviour::Honest, FLOOR);
        fixture.run(5 * SECOND_NS);
        assert_eq!(fixture.driver.size(), FLOOR, "{behaviour:?}");
    }
}

#[test]
fn a_host_that_refuses_deflating_is_called_less_often_each_time() {
    for behaviour in [
        Behaviour::Refuses(EntryStatus::NotGranted),
        Behaviour::Forgets,
        Behaviour::Silent,
        Behaviour::Contradicts(Status::BadCount),
    ] {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.run(SECOND_NS);
        fixture.set_target(TOTAL.0);
        fixture.host.behaviour = behaviour;
        let (balloon, calls) = (fixture.balloon(), fixture.host.calls);
        assert!(matches!(fixture.run(60 * SECOND_NS), Next::Wait { .. }), "{behaviour:?}");
        assert_eq!(fixture.balloon(), balloon);
        assert!((60..100).contains(&(fixture.host.calls - calls)), "{behaviour:?}");
        fixture.check().unwrap();
    }
}

#[test]
fn a_refusal_after_a_lower_target_is_no_failure() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.set_target(TOTAL.0);
    fixture.host.target = FLOOR;
    assert_eq!((fixture.step(), fixture.step()), (Next::Continue, Next::Idle));
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (FLOOR, None));
    fixture.set_target(TOTAL.0);
    assert_eq!(
        (fixture.run(0), fixture.driver.size()),
        (Next::Idle, TOTAL),
        "and is asked at once when it changes it again"
    );
}

#[test]
fn a_host_that_opens_no_session_is_called_seldom() {
    for behaviour in
        [Behaviour::Resets, Behaviour::ListsNonsense(0), Behaviour::Contradicts(Status::NoSession), Behaviour::Silent]
    {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.host.orders_reset = true;
        fixture.refresh();
        fixture.host.behaviour = behaviour;
        let calls = calls_in_a_minute_of_tumult(&mut fixture);
        assert!(calls < 400, "{calls} calls in a minute: {behaviour:?}");
        assert!(fixture.driver.stall_reason().is_some());
        fixture.check().unwrap();
        fixture.host.behaviour = Behaviour::Honest;
        assert_eq!(fixture.run(2 * SECOND_NS), Next::Idle, "{behaviour:?}");
        fixture.check().unwrap();
    }
}
