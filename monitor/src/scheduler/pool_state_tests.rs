//! What each state of the pool does (the table in `pool_state.rs`), and how the host sets it.

use super::guest::{Guest, Scarcity};
use super::test_fleet::{Fleet, mib};
use super::{
    Control, GuestSample, Hints, HostMemory, Limits, MemoryStalls, Policy, PoolState, Reason, StateCause, Subscription,
    Usage,
};
use crate::clock::Moment;

const LIMITS: Limits = Limits { min: mib(16), max: mib(1024) };

/// A fleet in a pool of 1000 MiB of which a guest always holds `filled_mib`.
fn filled(filled_mib: u64) -> Fleet {
    let mut fleet = Fleet::with_tax(1000, 75);
    let limits = Limits { min: mib(filled_mib), max: mib(filled_mib) };
    fleet.admit_with(limits, filled_mib, Subscription::default());
    fleet
}

fn reserved(reservation_mib: u64) -> Subscription {
    Subscription { reservation: mib(reservation_mib), ..Subscription::default() }
}

/// A host with this memory available, and without stalls.
fn available(count: u64) -> Option<HostMemory> {
    Some(HostMemory { available: mib(count), stalls: None })
}

#[test]
fn only_a_high_pool_is_patient() {
    for (free, state) in [(100, PoolState::High), (35, PoolState::Soft), (16, PoolState::Hard), (8, PoolState::Low)] {
        let mut fleet = filled(800 - free);
        let idle = fleet.admit(200, Subscription::default());
        fleet.run(100);
        assert!(fleet.targets()[idle] >= 200);
        fleet.guests[idle].needs = mib(100);
        let decision = fleet.run(1)[idle];
        let reason = if state == PoolState::High { Reason::Patience } else { Reason::PoolShort };
        let inputs = decision.inputs;
        assert_eq!(
            (inputs.pool, inputs.pool_cause, decision.reason),
            (state, StateCause::Pool, reason),
            "{decision:?}"
        );
    }
}

#[test]
fn an_emergency_knows_no_dead_band() {
    let policy = Policy::default();
    let now = Moment::from_ns(1);
    for (scarcity, target) in
        [(Scarcity::Plenty, 64), (Scarcity::LittleFree, 64), (Scarcity::Emergency, 62), (Scarcity::Short, 62)]
    {
        let mut guest = Guest::new(Limits { min: mib(64), max: mib(128) }, Subscription::default(), &policy);
        let [allowed, size, resident] = [mib(64); 3];
        let hints = Hints::Report(Usage { used: mib(40), ..Usage::default() });
        guest.observe(&GuestSample { allowed, size, resident, hints, control: Control::default() });
        guest.update(&policy, now);
        guest.lower(mib(62), scarcity, &policy, now);
        assert_eq!(guest.account.target(), mib(target), "{scarcity:?}");
    }
}

#[test]
fn a_low_pool_raises_guests_that_wait_and_those_below_their_minimum_only() {
    for (filled_mib, raised) in [(930, [18, 24, 18]), (944, [18, 16, 18])] {
        let mut fleet = filled(filled_mib);
        let waiting = fleet.admit(18, Subscription::default());
        let committed = fleet.admit(8, Subscription::default());
        fleet.guests[committed].usage.unshrinkable = mib(24);
        let below_minimum = fleet.admit(8, Subscription::default());
        fleet.scheduler.change(fleet.guests[below_minimum].id, Limits { min: mib(18), ..LIMITS }, reserved(0)).unwrap();
        let decisions = fleet.run(1);
        assert_eq!(decisions[waiting].inputs.pool == PoolState::Low, filled_mib == 944);
        assert_eq!(fleet.targets()[1..], raised);
        assert_eq!(decisions[below_minimum].reason, Reason::LimitsChanged);
    }
}

#[test]
fn a_host_without_memory_has_guarantees_honoured_and_nothing_else() {
    let mut fleet = filled(500);
    let guaranteed = fleet.admit(4, reserved(24));
    let other = fleet.admit(4, Subscription::default());
    fleet.run(10);
    fleet.guests[guaranteed].needs = mib(40);
    fleet.guests[other].needs = mib(40);
    fleet.scheduler.observe_host(available(8));
    fleet.run(1);
    // Low until 2 % of the pool are there.
    fleet.scheduler.observe_host(available(26));
    let decisions = fleet.run(3);
    assert_eq!((decisions[0].inputs.pool, decisions[0].inputs.pool_cause), (PoolState::Low, StateCause::HostMemory));
    assert_eq!(fleet.targets(), [500, 24, 16]);
    assert_eq!(decisions[other].reason, Reason::AwaitingMemory);
    let text = decisions[other].inputs.to_string();
    assert!(text.contains("the pool is low as the host has little memory left"), "{text}");
    fleet.scheduler.observe_host(available(400));
    fleet.run(3);
    assert!(fleet.targets()[1..].iter().all(|&target| target >= 40), "{:?}", fleet.targets());
}

#[test]
fn guests_release_memory_that_the_host_does_not_have() {
    let mut fleet = Fleet::with_tax(512, 75);
    let first = fleet.admit(900, reserved(200));
    let second = fleet.admit(900, Subscription::default());
    fleet.run(100);
    assert_eq!(fleet.targets(), [256, 256]);
    // Other processes need memory for as long as guests release some.
    for _ in 0..200 {
        fleet.scheduler.observe_host(available(0));
        fleet.run(1);
    }
    assert_eq!(fleet.targets(), [200, 16], "the guarantees");
    for _ in 0..200 {
        let held = fleet.targets()[first] + fleet.targets()[second];
        fleet.scheduler.observe_host(available(1000 - held));
        fleet.run(1);
    }
    assert_eq!(fleet.targets(), [256, 256]);
}

#[test]
fn a_host_that_stalls_has_idle_memory_reclaimed_at_once() {
    for (some, full, state) in [(0, 0, PoolState::High), (1500, 0, PoolState::Soft), (9000, 9000, PoolState::Hard)] {
        let mut fleet = Fleet::with_tax(1000, 75);
        let idle = fleet.admit(200, Subscription::default());
        fleet.run(100);
        fleet.guests[idle].needs = mib(100);
        let stalls = Some(MemoryStalls { some, full });
        fleet.scheduler.observe_host(Some(HostMemory { available: mib(10_000), stalls }));
        let decision = fleet.run(1)[idle];
        assert_eq!(decision.inputs.pool, state);
        let is_high = state == PoolState::High;
        assert_eq!(decision.reason, if is_high { Reason::Patience } else { Reason::PoolShort });
        assert_eq!(decision.inputs.pool_cause, if is_high { StateCause::Pool } else { StateCause::HostStalls });
    }
}
