//! A scheduler with simple guests, for tests of what it does for whom.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::{Control, Decision, GuestId, GuestSample, Hints, IdleTax, Limits, Policy, Scheduler, Subscription, Usage};
use crate::clock::Moment;

const TICK: Duration = Duration::from_millis(20);

pub(super) const fn mib(count: u64) -> FrameCount {
    FrameCount::from_mib(count)
}

/// A scheduler and guests that follow their targets at once, unless they are stuck.
pub(super) struct Fleet {
    pub(super) scheduler: Scheduler,
    pub(super) guests: Vec<SimpleGuest>,
    pub(super) now: Moment,
}

pub(super) struct SimpleGuest {
    pub(super) id: GuestId,
    pub(super) usage: Usage,
    /// What the guest could use. It waits for what its size has no room for, unless that is idle or
    /// file pages.
    pub(super) needs: FrameCount,
    pub(super) size: FrameCount,
    pub(super) is_stuck: bool,
    /// Whether it moves to its swap disk what it has no room for, instead of waiting, and brings it
    /// back.
    pub(super) is_swapping: bool,
}

impl Fleet {
    pub(super) fn new(pool: FrameCount, policy: Policy) -> Self {
        Self { scheduler: Scheduler::new(pool, policy), guests: Vec::new(), now: Moment::from_ns(1) }
    }

    pub(super) fn with_tax(pool_mib: u64, percent: u8) -> Self {
        Self::new(mib(pool_mib), Policy { idle_tax: IdleTax::new(percent).unwrap(), ..Policy::default() })
    }

    pub(super) fn admit(&mut self, needs_mib: u64, subscription: Subscription) -> usize {
        self.admit_with(Limits { min: mib(16), max: mib(1024) }, needs_mib, subscription)
    }

    pub(super) fn admit_with(&mut self, limits: Limits, needs_mib: u64, subscription: Subscription) -> usize {
        let (id, size) = self.scheduler.admit(limits, subscription).unwrap();
        let needs = mib(needs_mib);
        self.guests.push(SimpleGuest { id, usage: Usage::default(), needs, size, is_stuck: false, is_swapping: false });
        self.guests.len() - 1
    }

    /// Lets `ticks` pass; returns the decisions of the last.
    pub(super) fn run(&mut self, ticks: u32) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..ticks {
            self.now = self.now.after(TICK);
            for guest in &mut self.guests {
                let target = self.scheduler.target(guest.id).unwrap();
                guest.size = if guest.is_stuck { guest.size.max(target) } else { target };
                guest.usage.used = guest.needs.min(guest.size);
                let Usage { used, droppable, idle, .. } = guest.usage;
                let at_once = guest.needs.saturating_sub(droppable).saturating_sub(idle);
                guest.usage.wanted = at_once.saturating_sub(guest.size);
                if guest.is_swapping {
                    guest.usage.evicted = std::mem::take(&mut guest.usage.wanted);
                    guest.usage.restored += guest.usage.evicted.0 / 32;
                }
                let hints =
                    Hints::Report(Usage { droppable: droppable.min(used), idle: idle.min(used), ..guest.usage });
                let sample = GuestSample {
                    allowed: guest.size,
                    size: guest.size,
                    resident: guest.size,
                    hints,
                    control: Control::default(),
                };
                self.scheduler.observe(guest.id, &sample);
            }
            decisions = self.scheduler.decide(self.now);
        }
        decisions
    }

    pub(super) fn targets(&self) -> Vec<u64> {
        self.guests.iter().map(|guest| self.scheduler.target(guest.id).unwrap().mib()).collect()
    }
}

pub(super) fn shares(text: &str) -> Subscription {
    Subscription { shares: text.parse().unwrap(), ..Subscription::default() }
}
