//! The scheduler: admission, and one decision for all guests at a time.

use aerostat_abi::units::FrameCount;

use super::decision::Decision;
use super::fair::share_out;
use super::guest::{Guest, Scarcity};
use super::limits::{GuestId, GuestSample, Limits};
use super::policy::Policy;
use crate::clock::Moment;

/// The scheduler of a pool. [`Scheduler::admit`] adds a guest, [`Scheduler::remove`] removes it.
#[derive(Debug)]
pub struct Scheduler {
    pool: FrameCount,
    policy: Policy,
    /// In the order of admission, which is that of their numbers.
    guests: Vec<Guest>,
    next_id: usize,
}

/// Why a guest can't be admitted; the scheduler is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// All minima together would exceed the pool, so that they could not be honoured.
    #[error("the minima of all guests would add up to {minima}, and the pool has {pool}")]
    MinimaExceedPool {
        /// Σ of the minima, the new guest's included.
        minima: FrameCount,
        /// The pool.
        pool: FrameCount,
    },
    /// The minimum is not free now; other guests may release memory later.
    #[error("the guest's minimum is {min}, and {free} of the pool is free now")]
    NotFreeNow {
        /// The new guest's minimum.
        min: FrameCount,
        /// Pool memory that no guest holds.
        free: FrameCount,
    },
}

impl Scheduler {
    /// Creates a scheduler of `pool`, without guests.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy) -> Self {
        Self { pool, policy, guests: Vec::new(), next_id: 0 }
    }

    /// Adds a guest and returns its first target: its minimum, granted at once.
    ///
    /// # Errors
    ///
    /// Fails with [`AdmissionError`] where the pool can't honour the limits, or not yet.
    pub fn admit(&mut self, limits: Limits) -> Result<(GuestId, FrameCount), AdmissionError> {
        let minima = self.minima().saturating_add(limits.min);
        if minima > self.pool {
            return Err(AdmissionError::MinimaExceedPool { minima, pool: self.pool });
        }
        let free = self.free();
        if limits.min > free {
            return Err(AdmissionError::NotFreeNow { min: limits.min, free });
        }
        let id = GuestId(self.next_id);
        self.next_id += 1;
        self.guests.push(Guest::new(id, limits));
        Ok((id, limits.min))
    }

    /// Removes a guest whose machine is gone: all memory that it held is free at once.
    pub fn remove(&mut self, guest: GuestId) {
        if let Ok(place) = self.place(guest) {
            self.guests.remove(place);
        }
    }

    /// Records a sample of a guest. Guests that were removed are ignored.
    pub fn observe(&mut self, guest: GuestId, sample: &GuestSample) {
        if let Ok(place) = self.place(guest) {
            self.guests[place].observe(sample);
        }
    }

    /// Returns a guest's present target.
    #[must_use]
    pub fn target(&self, guest: GuestId) -> Option<FrameCount> {
        self.place(guest).ok().map(|place| self.guests[place].target())
    }

    /// Returns the pool memory that no guest holds.
    #[must_use]
    pub fn free(&self) -> FrameCount {
        self.pool.saturating_sub(self.sum(Guest::held))
    }

    /// Returns whether a guest is below its entitlement for lack of free memory, so that the next
    /// decision should come soon.
    #[must_use]
    pub fn is_guest_waiting(&self) -> bool {
        self.guests.iter().any(Guest::lacks_memory)
    }

    /// Returns a decision for each guest, in the order of admission. Decisions are in force when
    /// this returns.
    pub fn decide(&mut self, now: Moment) -> Vec<Decision> {
        self.plan();
        self.lower(now);
        self.raise();
        self.guests.iter().map(Guest::decision).collect()
    }

    /// Works out demand and entitlement of every guest.
    fn plan(&mut self) {
        let policy = self.policy;
        self.guests.iter_mut().for_each(|guest| guest.update_demand(&policy));
        let beyond_minima = self.pool.saturating_sub(self.minima());
        let plan = |guest: &mut Guest, share| guest.plan(share, &policy);
        share_out(beyond_minima, &mut self.guests, Guest::claim_beyond_min, plan);
    }

    /// Lowers targets above the entitlement.
    fn lower(&mut self, now: Moment) {
        let policy = self.policy;
        let scarcity = if self.sum(Guest::shortage) > self.free() { Scarcity::Short } else { Scarcity::Plenty };
        self.guests.iter_mut().for_each(|guest| guest.lower(scarcity, &policy, now));
    }

    /// Shares the free memory among the guests below their entitlement.
    fn raise(&mut self) {
        let policy = self.policy;
        let free = self.free();
        share_out(free, &mut self.guests, Guest::claim_on_free, |guest, share| guest.raise(share, &policy));
    }

    /// Returns the memory that is committed to the guests for good.
    fn minima(&self) -> FrameCount {
        self.sum(|guest| guest.limits.min)
    }

    fn sum(&self, count: impl Fn(&Guest) -> FrameCount) -> FrameCount {
        self.guests.iter().map(count).fold(FrameCount::ZERO, FrameCount::saturating_add)
    }

    fn place(&self, guest: GuestId) -> Result<usize, usize> {
        self.guests.binary_search_by_key(&guest, |guest| guest.id)
    }
}
