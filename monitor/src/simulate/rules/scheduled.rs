//! The scheduler of this project, exactly as the supervisor uses it.

use aerostat_abi::units::FrameCount;

use super::{Observed, Rule};
use crate::clock::Moment;
use crate::scheduler::{GuestId, Limits, Policy, Scheduler, Subscription};

/// The scheduler with its guests, in the order of the fleet.
#[derive(Debug)]
pub struct Scheduled {
    scheduler: Scheduler,
    guests: Vec<GuestId>,
}

impl Scheduled {
    /// Admits a guest for each of `limits`.
    ///
    /// # Panics
    ///
    /// Panics if the minima exceed the pool; a trace has been checked for that.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy, limits: &[Limits]) -> Self {
        let mut scheduler = Scheduler::new(pool, policy);
        let admit = |&limits: &Limits| {
            scheduler.admit(limits, Subscription::default()).expect("the pool has room for all minima").0
        };
        let guests = limits.iter().map(admit).collect();
        Self { scheduler, guests }
    }
}

impl Rule for Scheduled {
    fn name(&self) -> &'static str {
        "aerostat"
    }

    fn is_confined(&self, guest: usize) -> bool {
        let enforced = self.guests.get(guest).and_then(|&id| self.scheduler.enforced(id));
        enforced.is_some_and(|enforced| enforced.is_to_be_limited())
    }

    fn decide(&mut self, guests: &[Observed], now: Moment) -> Vec<FrameCount> {
        for (&id, guest) in self.guests.iter().zip(guests) {
            self.scheduler.observe(id, &guest.sample);
        }
        // A decision for each guest, in the order of admission.
        self.scheduler.decide(now).iter().map(|decision| decision.target).collect()
    }
}
