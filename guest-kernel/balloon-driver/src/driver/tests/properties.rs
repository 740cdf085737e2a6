//! Properties that hold whatever the host and the guest do.

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;
use aerostat_abi::units::FrameCount;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert, prop_assert_eq, prop_assert_ne, prop_oneof, proptest};

use super::{FLOOR, Fixture, KERNEL_FLOOR, SECOND_NS, TOTAL};
use crate::driver::Next;
use crate::testing::Behaviour;

fn behaviour() -> impl Strategy<Value = Behaviour> {
    let refusals =
        [EntryStatus::Pending, EntryStatus::AlreadyBallooned, EntryStatus::NotBallooned, EntryStatus::HostFailed];
    let statuses = [Status::UnknownCommand, Status::BadCount, Status::BadPage, Status::BadArgument];
    prop_oneof![
        4 => Just(Behaviour::Honest),
        1 => (0..refusals.len()).prop_map(move |place| Behaviour::Refuses(refusals[place])),
        2 => (0_u64..1000).prop_map(Behaviour::RefusesSome),
        1 => Just(Behaviour::Forgets),
        1 => Just(Behaviour::Silent),
        1 => (0..statuses.len()).prop_map(move |place| Behaviour::Contradicts(statuses[place])),
        1 => Just(Behaviour::Resets),
        1 => (0_u8..8).prop_map(Behaviour::ListsNonsense),
        1 => Just(Behaviour::ListsNothing),
    ]
}

/// Anything a register can hold, and often something sensible.
fn target() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..=TOTAL.0, 1 => 0_u64..=u64::MAX, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(FLOOR.0 - 1)]
}

/// What happens between two steps.
#[derive(Clone, Debug)]
struct Turn {
    behaviour: Behaviour,
    target: u64,
    is_refreshed: bool,
    orders_reset: bool,
    /// The guest: can swap, thrashes, waits for memory, can move pages.
    guest: [bool; 4],
    pause_ns: u64,
    used: u64,
    freed: u64,
}

fn turn() -> impl Strategy<Value = Turn> {
    let pause = prop_oneof![Just(0), 0..SECOND_NS / 1000, 0..2 * SECOND_NS];
    let use_of = || prop_oneof![2 => Just(0_u64), 1 => 0_u64..2000];
    let flags = (proptest::bool::ANY, proptest::bool::weighted(0.1));
    let guest = [
        proptest::bool::weighted(0.5),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.5),
    ];
    (behaviour(), target(), flags, guest, pause, use_of(), use_of()).prop_map(
        |(behaviour, target, (is_refreshed, orders_reset), guest, pause_ns, used, freed)| Turn {
            behaviour,
            target,
            is_refreshed,
            orders_reset,
            guest,
            pause_ns,
            used,
            freed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_host_makes_the_driver_lose_a_frame_or_spin(turns in vec(turn(), 1..40)) {
        let mut fixture = Fixture::new(TOTAL.0);
        for turn in turns {
            (fixture.host.behaviour, fixture.host.target) = (turn.behaviour, FrameCount(turn.target));
            fixture.host.orders_reset = turn.orders_reset;
            let [can_swap, is_thrashing, has_waiters, can_move] = turn.guest;
            let memory = &mut fixture.memory;
            (memory.can_swap, memory.is_thrashing, memory.has_waiters) = (can_swap, is_thrashing, has_waiters);
            memory.move_ns = can_move.then_some(500);
            memory.use_frames(turn.used);
            memory.end_use(turn.freed);
            if turn.is_refreshed {
                fixture.refresh();
            }
            let in_use = fixture.memory.in_use.len();
            let before = (fixture.balloon(), fixture.driver.session.stage, fixture.driver.target(), in_use);
            match fixture.step() {
                Next::Continue | Next::Rest => {
                    let in_use = fixture.memory.in_use.len();
                    let after = (fixture.balloon(), fixture.driver.session.stage, fixture.driver.target(), in_use);
                    prop_assert_ne!(after, before, "a step that moved and evicted nothing wants another");
                }
                Next::Wait { until_ns } => {
                    prop_assert!(until_ns > fixture.clock.now_ns(), "waiting for now is spinning");
                    prop_assert!(until_ns <= fixture.clock.now_ns() + SECOND_NS);
                }
                Next::Idle => {}
            }
            fixture.check_places()?;
            let is_open = fixture.driver.session.is_open();
            if is_open && fixture.driver.disputed() == FrameCount::ZERO {
                fixture.check()?;
            }
            fixture.clock.spend(turn.pause_ns);
        }
        // Whatever has happened, a host that is honest from now on gets its session and the guest
        // its memory.
        fixture.host.behaviour = Behaviour::Honest;
        fixture.host.target = TOTAL;
        fixture.refresh();
        fixture.run(5 * SECOND_NS);
        prop_assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (TOTAL, None));
        fixture.check()?;
    }

    #[test]
    fn every_reachable_target_is_reached(
        used in 0..TOTAL.0,
        targets in vec(0..=TOTAL.0, 1..6),
    ) {
        let mut fixture = Fixture::new(TOTAL.0);
        fixture.memory.use_frames(used);
        let smallest = FLOOR.0.max(fixture.memory.in_use.len() as u64 + KERNEL_FLOOR.0).min(TOTAL.0);
        for target in targets {
            let target = target.max(smallest);
            fixture.set_target(target);
            prop_assert_eq!(fixture.run(SECOND_NS), Next::Idle);
            prop_assert_eq!(fixture.driver.size(), FrameCount(target));
            fixture.check()?;
        }
    }

    #[test]
    fn an_unreachable_target_is_approached_as_far_as_possible(used in 0..TOTAL.0, target in 0..TOTAL.0) {
        let mut fixture = Fixture::new(target);
        fixture.memory.use_frames(used);
        fixture.refresh();
        fixture.run(30 * SECOND_NS);
        let smallest = FLOOR.0.max(used + KERNEL_FLOOR.0).max(target).min(TOTAL.0);
        prop_assert_eq!(fixture.driver.size(), FrameCount(smallest));
        fixture.check()?;
    }
}
