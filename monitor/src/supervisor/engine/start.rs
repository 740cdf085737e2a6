//! Guests on their way into the fleet: admitted, started, taken over.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::Supervisor;
use crate::clock::Moment;
use crate::fleet::GuestSpec;
use crate::host::{GuestHandle, Origin};
use crate::scheduler::{AdmissionError, GuestId, Holding, Limits};
use crate::supervisor::guest::{Guest, Start, overhead};
use crate::supervisor::starters::STARTERS;
use crate::supervisor::status::EventKind;

/// A guest that has its place in the pool and does not run yet.
#[derive(Debug)]
pub struct Admission {
    id: GuestId,
    spec: GuestSpec,
    target: FrameCount,
}

/// The process of an admitted guest.
#[derive(Debug)]
pub struct Launched<G> {
    /// The running guest.
    pub handle: G,
    /// The moment before its process was started.
    pub spawned: Moment,
}

/// Why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pool can't honour its limits.
    #[error("guest {name:?} is not admitted: {source}")]
    NotAdmitted {
        /// The guest.
        name: String,
        /// Why.
        source: AdmissionError,
    },
    /// The guest's process could not be started.
    #[error("guest {name:?} can't be started: {source:#}")]
    NotStarted {
        /// The guest.
        name: String,
        /// Why.
        source: anyhow::Error,
    },
}

impl Admission {
    /// Returns what the fleet file says of the guest.
    #[must_use]
    pub fn spec(&self) -> &GuestSpec {
        &self.spec
    }

    /// Returns the number under which the scheduler knows it.
    #[must_use]
    pub fn id(&self) -> GuestId {
        self.id
    }

    /// Returns the guest's first target.
    #[must_use]
    pub fn target(&self) -> FrameCount {
        self.target
    }
}

impl<G: GuestHandle> Supervisor<G> {
    /// Reserves a guest's minimum: no other guest is granted it, however long the guest's start
    /// takes.
    ///
    /// # Errors
    ///
    /// [`StartError::NotAdmitted`].
    pub fn admit(&mut self, spec: &GuestSpec) -> Result<Admission, StartError> {
        let admitted = self.scheduler.admit(spec.limits, spec.subscription);
        let (id, target) = admitted.map_err(|source| StartError::NotAdmitted { name: spec.name.clone(), source })?;
        self.starting.insert(id, target);
        Ok(Admission { id, spec: spec.clone(), target })
    }

    /// Takes over the process of an admitted guest, in any order of admissions.
    pub fn launched(&mut self, admission: Admission, Launched { handle, spawned }: Launched<G>, now: Moment) {
        let Admission { id, spec, target } = admission;
        self.starting.remove(&id);
        let (start, machine) = match handle.origin() {
            Origin::Started => (Start::new(target, spawned), spec.limits.max),
            Origin::Found { machine, size } => {
                self.scheduler.found_running(id, Holding { target: size, size });
                self.bound = self.bound.max(self.scheduler.held());
                (Start { size: Some(size), ..Start::new(size, spawned) }, machine)
            }
        };
        let target = start.target;
        self.moved.granted(id, target);
        let mut guest = Guest::new(id, &spec, handle, start);
        guest.set_machine(machine);
        if self.keeps_samples {
            guest.keep_samples();
        }
        // Guests are kept in the order of their admission, which is that of their numbers.
        let place = self.guests.partition_point(|guest| guest.id < id);
        self.guests.insert(place, guest);
        if machine < spec.limits.max {
            let max = FrameCount(machine.0 / HUGE_FRAMES * HUGE_FRAMES);
            let limits = Limits { min: spec.limits.min.min(max), max };
            // Lower guarantees are never refused.
            let _ = self.change(id, limits, spec.subscription);
        }
        self.note(now, EventKind::Started { guest: spec.name, target });
    }

    /// Gives up the place of an admitted guest whose process could not be started; the other guests
    /// are as before.
    pub fn withdraw(&mut self, admission: Admission, source: anyhow::Error) -> StartError {
        let Admission { id, spec, .. } = admission;
        self.starting.remove(&id);
        self.scheduler.remove(id);
        StartError::NotStarted { name: spec.name, source }
    }

    /// Returns what the processes may use that are being started now: the first of those that are
    /// admitted.
    pub(super) fn overhead_of_starts(&self) -> FrameCount {
        self.starting
            .values()
            .take(STARTERS)
            .map(|&target| overhead(target))
            .fold(FrameCount::ZERO, FrameCount::saturating_add)
    }
}
