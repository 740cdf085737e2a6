//! Which guests there are, and what they and the pool are entitled to: changes from outside, each
//! of which is made in full or refused with nothing changed.

use aerostat_abi::units::FrameCount;

use super::engine::Scheduler;
use super::guest::{Guest, Holding, guaranteed};
use super::limits::{GuestId, Limits};
use super::subscription::Subscription;

/// Why a guest can't be admitted or changed, or the pool resized; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// All minima and reservations together would exceed the pool, so that they could not be
    /// honoured.
    #[error("the minima and reservations of all guests would add up to {guaranteed}, and the pool has {pool}")]
    GuaranteesExceedPool {
        /// Their sum, with the change.
        guaranteed: FrameCount,
        /// The pool, with the change.
        pool: FrameCount,
    },
    /// The minimum is not free now; other guests may release memory later.
    #[error("the guest's minimum is {min}, and {free} of the pool is free now")]
    NotFreeNow {
        /// The new guest's minimum.
        min: FrameCount,
        /// What no guest holds.
        free: FrameCount,
    },
}

impl Scheduler {
    /// Takes a guest in and returns its first target: its minimum, granted at once.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where the pool can't honour the limits, or not yet.
    pub fn admit(
        &mut self,
        limits: Limits,
        subscription: Subscription,
    ) -> Result<(GuestId, FrameCount), AdmissionError> {
        self.can_admit(limits, subscription)?;
        let id = GuestId(self.next_id);
        self.next_id += 1;
        self.guests.insert(id, Guest::new(limits, subscription, &self.policy));
        Ok((id, limits.min))
    }

    /// Takes in a guest that runs already, with the target that is in force. It is never refused:
    /// what it holds is gone from the pool, also where the pool has less. Then no guest is raised
    /// until others have released what is too much.
    pub fn adopt(&mut self, limits: Limits, subscription: Subscription, held: Holding) -> GuestId {
        let id = GuestId(self.next_id);
        self.next_id += 1;
        self.guests.insert(id, Guest::adopted(limits, subscription, held, &self.policy));
        id
    }

    /// Notes that an admitted guest runs already, with the target that is in force: as for
    /// [`Self::adopt`], it holds what it holds.
    pub fn found_running(&mut self, guest: GuestId, held: Holding) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            *guest = Guest::adopted(guest.limits, guest.subscription, held, &self.policy);
        }
    }

    /// Checks whether a guest with these limits would be admitted now.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where it would not.
    pub fn can_admit(&self, limits: Limits, subscription: Subscription) -> Result<(), AdmissionError> {
        check_guarantees(self.guaranteed().saturating_add(guaranteed(limits, subscription)), self.pool)?;
        let free = self.free();
        if limits.min > free {
            return Err(AdmissionError::NotFreeNow { min: limits.min, free });
        }
        Ok(())
    }

    /// Forgets a guest whose machine is gone: all it held is free at once.
    pub fn remove(&mut self, guest: GuestId) {
        self.guests.remove(&guest);
    }

    /// Changes a guest's limits and subscription. The next decision lowers a target above the new
    /// maximum; it raises one below the new minimum, as soon as other guests have released what
    /// that needs. A guest that was removed is ignored.
    ///
    /// The new maximum must not exceed the memory of the guest's machine.
    ///
    /// # Errors
    ///
    /// [`AdmissionError::GuaranteesExceedPool`].
    pub fn change(&mut self, guest: GuestId, limits: Limits, subscription: Subscription) -> Result<(), AdmissionError> {
        let others = self.guests.iter().filter(|(id, _)| **id != guest).map(|(_, other)| other.guaranteed());
        check_guarantees(others.fold(guaranteed(limits, subscription), FrameCount::saturating_add), self.pool)?;
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.limits = limits;
            guest.subscription = subscription;
        }
        Ok(())
    }

    /// Resizes the pool. Where guests hold more than the new size, the next decisions lower their
    /// targets and raise none, until they have released what is too much.
    ///
    /// # Errors
    ///
    /// [`AdmissionError::GuaranteesExceedPool`].
    pub fn resize(&mut self, pool: FrameCount) -> Result<(), AdmissionError> {
        check_guarantees(self.guaranteed(), pool)?;
        self.pool = pool;
        Ok(())
    }

    /// Fixes a guest's target at `pin`, within the guest's limits, or leaves it to the scheduler
    /// again. It is lowered at once and raised from free memory; other guests make room as far as
    /// their guarantees allow. A guest that was removed is ignored.
    pub fn pin(&mut self, guest: GuestId, pin: Option<FrameCount>) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.pin = pin;
        }
    }
}

fn check_guarantees(guaranteed: FrameCount, pool: FrameCount) -> Result<(), AdmissionError> {
    if guaranteed > pool { Err(AdmissionError::GuaranteesExceedPool { guaranteed, pool }) } else { Ok(()) }
}
