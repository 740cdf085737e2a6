//! The scheduler against simulated guests that do whatever guests can do.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use proptest::{collection::vec, prelude::Strategy, prop_assert, prop_oneof, proptest};

use super::{Contract, GuestId, GuestSample, Hints, Policy, Reason, Scheduler, Usage};
use crate::clock::Moment;

const TICK: Duration = Duration::from_millis(20);

/// A guest with its VMM process: the target it may have read lately, and its real counts.
#[derive(Debug)]
struct Guest {
    id: GuestId,
    contract: Contract,
    target: FrameCount,
    /// The last target before this one, and when it was replaced.
    stale: (FrameCount, Moment),
    size: FrameCount,
    resident: FrameCount,
    usage: Usage,
}

impl Guest {
    fn held(&self) -> FrameCount {
        self.target.max(self.size).max(self.resident)
    }

    /// Grows as far as the target allows that its VMM process sees at `now`: within the settling time also an old one.
    fn take(&mut self, frames: u64, now: Moment, settle: Duration) {
        let stale = if now.since(self.stale.1) < settle { self.stale.0 } else { FrameCount::ZERO };
        let limit = self.target.max(stale);
        if self.size < limit {
            self.size = FrameCount(self.size.0.saturating_add(frames)).min(limit);
        }
    }
}

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Event {
    Take { guest: usize, frames: u64 },
    Give { guest: usize, frames: u64 },
    Touch { guest: usize, frames: u64 },
    Release { guest: usize, frames: u64 },
    Report { guest: usize, usage: [u64; 3] },
    End { guest: usize },
    Pass { ms: u64 },
    Decide,
}

fn event() -> impl Strategy<Value = Event> {
    let guest = 0_usize..6;
    let frames = 0_u64..60_000;
    prop_oneof![
        (guest.clone(), frames.clone()).prop_map(|(guest, frames)| Event::Take { guest, frames }),
        (guest.clone(), frames.clone()).prop_map(|(guest, frames)| Event::Give { guest, frames }),
        (guest.clone(), frames.clone()).prop_map(|(guest, frames)| Event::Touch { guest, frames }),
        (guest.clone(), frames.clone()).prop_map(|(guest, frames)| Event::Release { guest, frames }),
        (guest.clone(), [0_u64..140_000, 0_u64..140_000, 0_u64..3000])
            .prop_map(|(guest, usage)| Event::Report { guest, usage }),
        (0_usize..60).prop_map(|guest| Event::End { guest }),
        (0_u64..400).prop_map(|ms| Event::Pass { ms }),
        proptest::strategy::Just(Event::Decide),
    ]
}

fn fleet(contracts: &[(u64, u64)], pool: FrameCount, now: Moment) -> (Scheduler, Vec<Option<Guest>>) {
    let mut scheduler = Scheduler::new(pool, Policy::default());
    let guests = contracts
        .iter()
        .filter_map(|&(min, more)| {
            let min = FrameCount(min * HUGE_FRAMES);
            let contract = Contract { min, max: FrameCount(min.0 + more * HUGE_FRAMES) };
            let (id, target) = scheduler.admit(contract, now).ok()?;
            let (size, resident) = (target, FrameCount::ZERO);
            Some(Some(Guest { id, contract, target, stale: (target, now), size, resident, usage: Usage::default() }))
        })
        .collect();
    (scheduler, guests)
}

fn look(scheduler: &mut Scheduler, guests: &mut [Option<Guest>], now: Moment) {
    for guest in guests.iter().flatten() {
        let hints = Hints::Report(guest.usage);
        scheduler.observe(guest.id, &GuestSample { size: guest.size, resident: guest.resident, hints });
    }
    for decision in scheduler.decide(now) {
        let guest = guests.iter_mut().flatten().find(|guest| guest.id == decision.guest).unwrap();
        assert!(decision.target >= guest.contract.min && decision.target <= guest.contract.max);
        assert_eq!(decision.from, guest.target);
        assert_eq!(decision.target.0 % HUGE_FRAMES, 0);
        if decision.is_change() {
            guest.stale = (guest.target, now);
            guest.target = decision.target;
        }
    }
}

/// A fleet of honest guests that use `used_mib` each and follow their targets within a tick; returns the targets in MiB.
fn settle(pool_mib: u64, used_mib: &[u64]) -> Vec<u64> {
    let mut now = Moment::from_ns(1);
    let contracts: Vec<(u64, u64)> = used_mib.iter().map(|_| (32, 224)).collect();
    let (mut scheduler, mut guests) = fleet(&contracts, FrameCount::from_mib(pool_mib), now);
    for _ in 0..100 {
        for (guest, &used) in guests.iter_mut().flatten().zip(used_mib) {
            guest.size = guest.target;
            guest.usage.used = FrameCount::from_mib(used).min(guest.size);
            guest.usage.wanted = FrameCount::from_mib(used).saturating_sub(guest.usage.used);
            guest.resident = guest.usage.used;
        }
        now = now.after(TICK);
        look(&mut scheduler, &mut guests, now);
    }
    guests.iter().flatten().map(|guest| guest.target.mib()).collect()
}

#[test]
fn everybody_gets_use_and_headroom_from_a_large_pool() {
    // 318 where 320 would be the demand: the last step is within the dead band.
    assert_eq!(settle(1000, &[300, 100, 10]), [318, 112, 64]);
}

#[test]
fn a_scarce_pool_is_shared_fairly() {
    let targets = settle(512, &[400, 400, 100]);
    assert_eq!(targets.iter().sum::<u64>(), 512);
    assert_eq!(targets[2], 112, "who asks for little gets it");
    assert!(targets[0].abs_diff(targets[1]) <= 2);
}

#[test]
fn memory_flows_to_a_waking_guest_only_after_the_other_let_go() {
    let mut now = Moment::from_ns(1);
    let (mut scheduler, mut guests) = fleet(&[(32, 224), (32, 224)], FrameCount::from_mib(600), now);
    let mib = FrameCount::from_mib;
    let report = |guest: &mut Option<Guest>, committed| {
        guest.as_mut().unwrap().usage.committed = mib(committed);
    };
    report(&mut guests[0], 440);
    look(&mut scheduler, &mut guests, now);
    let first = guests[0].as_ref().unwrap().target;
    guests[0].as_mut().unwrap().size = first;
    guests[0].as_mut().unwrap().resident = first;

    report(&mut guests[0], 60);
    report(&mut guests[1], 440);
    now = now.after(TICK);
    look(&mut scheduler, &mut guests, now);
    assert!(guests[0].as_ref().unwrap().target < mib(100), "the idle guest shrinks at once, somebody is short");
    assert_eq!(guests[1].as_ref().unwrap().target, mib(600).saturating_sub(first), "only what is free is granted");
    assert!(scheduler.is_somebody_short());

    let idle = guests[0].as_mut().unwrap();
    (idle.size, idle.resident) = (idle.target, idle.target);
    now = now.after(TICK);
    look(&mut scheduler, &mut guests, now);
    assert!(guests[1].as_ref().unwrap().target > mib(440));
    assert!(!scheduler.is_somebody_short());
}

#[test]
fn an_idle_guest_keeps_its_memory_for_a_moment_while_nobody_is_short() {
    let mut now = Moment::from_ns(1);
    let (mut scheduler, _) = fleet(&[(32, 224)], FrameCount::from_mib(600), now);
    let mut reason_for = |committed: u64, now| {
        let usage = Usage { committed: FrameCount::from_mib(committed), ..Usage::default() };
        let size = scheduler.target(GuestId(0)).unwrap();
        scheduler.observe(GuestId(0), &GuestSample { size, resident: size, hints: Hints::Report(usage) });
        scheduler.decide(now)[0].reason
    };
    assert_eq!(reason_for(400, now), Reason::Demand);
    assert_eq!(reason_for(400, now), Reason::Fits);
    assert_eq!(reason_for(100, now), Reason::Patience);
    now = now.after(Duration::from_millis(299));
    assert_eq!(reason_for(200, now), Reason::Patience);
    now = now.after(Duration::from_millis(1));
    assert_eq!(reason_for(100, now), Reason::Idle);
    assert!(scheduler.target(GuestId(0)).unwrap() > FrameCount::from_mib(200), "it was at 200 MiB a moment ago");
}

#[test]
fn admission_refuses_what_can_not_be_honoured() {
    let now = Moment::from_ns(1);
    let (mut scheduler, guests) = fleet(&[(32, 32), (32, 32)], FrameCount::from_mib(128), now);
    assert_eq!(guests.len(), 2);
    let contract = Contract { min: FrameCount(HUGE_FRAMES), max: FrameCount(HUGE_FRAMES) };
    assert!(scheduler.admit(contract, now).is_err());
    scheduler.remove(GuestId(0));
    assert!(scheduler.admit(contract, now).is_ok());
}

proptest! {
    #[test]
    fn the_pool_is_never_overdrawn(
        contracts in vec((1_u64..40, 0_u64..250), 1..6),
        pool in 40_u64..400,
        events in vec(event(), 0..300),
    ) {
        let pool = FrameCount(pool * HUGE_FRAMES);
        let settle = Policy::default().settle;
        let mut now = Moment::from_ns(1);
        let (mut scheduler, mut guests) = fleet(&contracts, pool, now);
        for event in events {
            match event {
                Event::Take { guest, frames } => if let Some(Some(guest)) = guests.get_mut(guest) {
                    guest.take(frames, now, settle);
                },
                Event::Give { guest, frames } => if let Some(Some(guest)) = guests.get_mut(guest) {
                    guest.size = guest.size.saturating_sub(FrameCount(frames));
                },
                Event::Touch { guest, frames } => if let Some(Some(guest)) = guests.get_mut(guest) {
                    let touched = guest.resident.saturating_add(FrameCount(frames)).min(guest.size);
                    guest.resident = guest.resident.max(touched);
                },
                Event::Release { guest, frames } => if let Some(Some(guest)) = guests.get_mut(guest) {
                    guest.resident = guest.resident.saturating_sub(FrameCount(frames));
                },
                Event::Report { guest, usage: [used, committed, wanted] } => {
                    if let Some(Some(guest)) = guests.get_mut(guest) {
                        let bounded = |frames| FrameCount(frames).min(guest.contract.max);
                        guest.usage =
                            Usage { used: bounded(used), committed: bounded(committed), wanted: bounded(wanted) };
                    }
                }
                Event::End { guest } => if let Some(guest) = guests.get_mut(guest).and_then(Option::take) {
                    scheduler.remove(guest.id);
                },
                Event::Pass { ms } => now = now.after(Duration::from_millis(ms)),
                Event::Decide => look(&mut scheduler, &mut guests, now),
            }
            let held = guests.iter().flatten().fold(0, |sum, guest| sum + guest.held().0);
            prop_assert!(held <= pool.0, "{held} frames are held of {}", pool.0);
        }
    }

    #[test]
    fn targets_come_to_rest(pool in 100_u64..1000, used in vec(0_u64..500, 1..6)) {
        let last = last_change(pool * 2, &used);
        prop_assert!(last < 60, "targets still changed in look {last}");
    }
}

/// The last of 100 looks that changed a target, for guests that use these MiB with a little noise on top.
fn last_change(pool_mib: u64, used_mib: &[u64]) -> u64 {
    let mut now = Moment::from_ns(1);
    let contracts: Vec<(u64, u64)> = used_mib.iter().map(|_| (16, 240)).collect();
    let (mut scheduler, mut guests) = fleet(&contracts, FrameCount::from_mib(pool_mib), now);
    let mut last_change = 0;
    for round in 0..100 {
        let targets = |guests: &[Option<Guest>]| -> Vec<FrameCount> {
            guests.iter().flatten().map(|guest| guest.target).collect()
        };
        let before = targets(&guests);
        for (guest, &used) in guests.iter_mut().flatten().zip(used_mib) {
            guest.size = guest.target;
            guest.usage.committed = FrameCount(FrameCount::from_mib(used).0 + round * 97 % 400).min(guest.contract.max);
            guest.resident = guest.usage.committed.min(guest.size);
        }
        now = now.after(TICK);
        look(&mut scheduler, &mut guests, now);
        if targets(&guests) != before {
            last_change = round;
        }
    }
    last_change
}

#[test]
fn noise_in_a_scarce_pool_moves_nobodys_share() {
    // Demand is a hair above the pool: without steps in demand, the largest guest would pay for everybody's noise.
    assert!(last_change(1134, &[33, 186, 462, 95, 280]) < 60);
}
