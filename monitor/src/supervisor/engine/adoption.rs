//! Guests of an earlier supervisor, and how they enter the accounts of this one.
//!
//! A supervisor keeps nothing that can't be measured again. A guest that was taken over counts with
//! the target that is in force and with its size, and from the first poll on with what is measured.
//! Nothing is granted by that, so guests may hold more than the pool for a while.

use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;

use super::Supervisor;
use crate::clock::Moment;
use crate::fleet::GuestSpec;
use crate::host::cgroup::Location;
use crate::host::{Ending, GuestHandle};
use crate::scheduler::{GuestId, Holding};
use crate::supervisor::guest::{Guest, Start};
use crate::supervisor::status::EventKind;

/// A guest that an earlier supervisor has left.
#[derive(Debug)]
pub enum Found<G> {
    /// It runs, and was taken over.
    Running(Box<Adoption<G>>),
    /// It has ended.
    Ended(Box<PastGuest>),
}

/// A guest that ended before there was another supervisor.
#[derive(Debug)]
pub struct PastGuest {
    /// The guest as it was run.
    pub spec: GuestSpec,
    /// How it ended.
    pub ending: Ending,
}

/// A guest that was taken over.
#[derive(Debug)]
pub struct Adoption<G> {
    /// The guest as it was run.
    pub spec: GuestSpec,
    /// The running guest.
    pub handle: G,
    /// The moment before its process was started.
    pub spawned: Moment,
    /// All memory that its machine has.
    pub machine: FrameCount,
    /// The target that is in force.
    pub target: FrameCount,
    /// Its epoch.
    pub epoch: Epoch,
    /// The guest's size.
    pub size: FrameCount,
    /// The host's resources as the guest was told of them last, with the answers to its requests.
    pub told: Resources,
    /// The memory control group of its process.
    pub group: Option<Location>,
}

impl<G> Found<G> {
    /// Returns what the guest is.
    #[must_use]
    pub fn spec(&self) -> &GuestSpec {
        match self {
            Self::Running(adoption) => &adoption.spec,
            Self::Ended(past) => &past.spec,
        }
    }
}

impl<G: GuestHandle> Supervisor<G> {
    /// Takes in a guest that an earlier supervisor has left.
    pub fn take_in(&mut self, found: Found<G>, now: Moment) -> GuestId {
        match found {
            Found::Running(adoption) => self.adopt(*adoption, now),
            Found::Ended(past) => self.record_end(*past, now),
        }
    }

    fn adopt(&mut self, adoption: Adoption<G>, now: Moment) -> GuestId {
        let Adoption { spec, handle, spawned, machine, target, epoch, size, told, .. } = adoption;
        let id = self.scheduler.adopt(spec.limits, spec.subscription, Holding { target, size });
        self.bound = self.bound.max(self.scheduler.held());
        let mut guest = Guest::new(id, &spec, handle, Start { target, spawned, epoch, size: Some(size) });
        guest.set_machine(machine);
        guest.release_confinement();
        self.scheduler.go_on_from(id, &told);
        guest.exchange.go_on_from(told, now);
        if self.keeps_samples {
            guest.keep_samples();
        }
        self.guests.push(guest);
        self.note(now, EventKind::Adopted { guest: spec.name, target, size });
        id
    }

    fn record_end(&mut self, PastGuest { spec, ending }: PastGuest, now: Moment) -> GuestId {
        // It holds nothing; it only gets a number.
        let nothing = Holding { target: FrameCount::ZERO, size: FrameCount::ZERO };
        let id = self.scheduler.adopt(spec.limits, spec.subscription, nothing);
        self.scheduler.remove(id);
        self.guests.push(Guest::ended(id, &spec, ending.clone(), now));
        self.ended.push((id, ending.clone()));
        self.note(now, EventKind::Ended { guest: spec.name, ending });
        id
    }
}
