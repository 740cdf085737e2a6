//! What an earlier supervisor of a fleet has left: guests that run on, guests that have ended, and
//! what users had changed.
//!
//! The guests are taken over by several threads, as a process that was stopped or hangs answers
//! only after a while. A process that can't be taken over is ended, with one exception: one that
//! speaks another version of the protocol belongs to a supervisor of another build, which can still
//! take it over. Then nothing is taken over, and the command is refused.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::{Generation, Resources};

use super::{Failure, state_keeper};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec, Machine};
use crate::host::qemu::{QemuError, QemuGuest};
use crate::host::run_directory::RunDirectory;
use crate::host::vmm_guest::{AdoptError, Adopted, GuestRecord, Survivor, find_survivors};
use crate::host::{AnyGuest, EndReason, Ending, GuestHandle, Origin, oom};
use crate::supervisor::{Adoption, Found, PastGuest, SavedFleet};

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Guests that are taken over at the same time.
const THREADS: usize = 16;

/// What an earlier supervisor has left.
#[derive(Debug)]
pub(super) struct Inheritance {
    /// Its guests.
    pub(super) found: Vec<Found<AnyGuest>>,
    /// The fleet as its users had left it, if that is known.
    pub(super) saved: Option<SavedFleet>,
}

impl Inheritance {
    /// Takes over what an earlier supervisor has left in the run directory; `None` if it has ended
    /// as it should.
    ///
    /// # Errors
    ///
    /// Returns a refusal where guests need a supervisor of another build. They run on.
    pub(super) fn take_over(directory: &RunDirectory) -> Result<Option<Self>, Failure> {
        let survivors = find_survivors(directory)
            .map_err(|error| Failure::refused(format!("{}: can't be read: {error}", directory.path().display())))?;
        if survivors.is_empty() {
            return Ok(None);
        }
        let saved = state_keeper::read(directory);
        let results = adopt_all(survivors);
        if let Some((name, error)) = results.iter().find_map(other_version) {
            let refusal = Failure::refused(format!("guest {name:?} can't be taken over: {error}"));
            results.into_iter().filter_map(|(_, result)| result.ok()).for_each(Taken::leave);
            return Err(refusal);
        }
        let spec_of = |name: &str| saved.as_ref().and_then(|saved| saved.guest(name)).map(|guest| guest.spec.clone());
        let found = results.into_iter().filter_map(|(survivor, result)| found(survivor, result, spec_of)).collect();
        Ok(Some(Self { found, saved }))
    }

    /// Returns the fleet that goes on: as users had left it, or else as its file says.
    pub(super) fn fleet(&self, file: Fleet) -> Fleet {
        self.saved.as_ref().map_or(file, SavedFleet::fleet)
    }
}

/// What is needed of a survivor that was not taken over.
struct Left {
    name: String,
    spec: Option<GuestSpec>,
}

/// A guest that was taken over.
enum Taken {
    Vmm(Box<Adopted>),
    Qemu(Box<(QemuGuest, GuestRecord)>),
}

impl Taken {
    fn leave(self) {
        match self {
            Self::Vmm(adopted) => adopted.guest.leave(),
            Self::Qemu(taken) => taken.0.leave(),
        }
    }
}

fn adopt_all(survivors: Vec<Survivor>) -> Vec<(Left, Result<Taken, AdoptError>)> {
    let threads = survivors.len().min(THREADS);
    let (queue, results) = (Mutex::new(VecDeque::from(survivors)), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(survivor) = next else { return };
                    let result = adopt(survivor);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    results
}

/// Takes a survivor over, or ends it and removes its files.
fn adopt(survivor: Survivor) -> (Left, Result<Taken, AdoptError>) {
    let record = survivor.record().ok();
    let spec = record.as_ref().map(|record| record.spec.clone());
    let result = match record {
        Some(record) if record.spec.machine == Machine::Qemu => adopt_qemu(&survivor, record),
        _ => survivor.adopt(PATIENCE).map(|adopted| Taken::Vmm(Box::new(adopted))),
    };
    match &result {
        Ok(_) | Err(AdoptError::OtherVersion { .. }) => {}
        Err(AdoptError::Gone(_)) => survivor.files.remove(),
        Err(_) => {
            // One that can't be killed either ends with its lease.
            let _ = survivor.kill();
            survivor.files.remove();
        }
    }
    (Left { name: survivor.name, spec }, result)
}

fn adopt_qemu(survivor: &Survivor, record: GuestRecord) -> Result<Taken, AdoptError> {
    match QemuGuest::adopt(Arc::clone(&survivor.files)) {
        Ok(guest) => Ok(Taken::Qemu(Box::new((guest, record)))),
        Err(QemuError::Gone) => Err(AdoptError::Gone(None)),
        Err(error) => Err(AdoptError::SetUp(io::Error::other(error))),
    }
}

fn other_version(result: &(Left, Result<Taken, AdoptError>)) -> Option<(&str, &AdoptError)> {
    match result {
        (left, Err(error @ AdoptError::OtherVersion { .. })) => Some((&left.name, error)),
        _ => None,
    }
}

/// Returns what the supervisor is told of a guest; `None` for one of which nothing is known.
fn found(
    left: Left,
    result: Result<Taken, AdoptError>,
    spec_of: impl Fn(&str) -> Option<GuestSpec>,
) -> Option<Found<AnyGuest>> {
    let spec = spec_of(&left.name).or(left.spec)?;
    let ending = match result {
        Ok(Taken::Qemu(taken)) => {
            let (guest, record) = *taken;
            let Origin::Found { machine, size } = guest.origin() else { return None };
            let adoption = Adoption {
                spec,
                spawned: Moment::from_ns(record.spawned_at_ns),
                machine,
                // Which target is in force QEMU does not tell. It is set again when it changes.
                target: size,
                epoch: Epoch::FIRST,
                size,
                told: unknown_resources(),
                group: guest.pid().and_then(oom::watch_group_of),
                handle: guest.into(),
            };
            return Some(Found::Running(Box::new(adoption)));
        }
        Ok(Taken::Vmm(adopted)) => {
            let Adopted { guest, record, target, epoch, size } = *adopted;
            let adoption = Adoption {
                spec,
                spawned: Moment::from_ns(record.spawned_at_ns),
                machine: record.memory,
                target,
                epoch,
                size,
                told: guest.registers().resources().unwrap_or_else(unknown_resources),
                group: guest.group().cloned(),
                handle: guest.into(),
            };
            return Some(Found::Running(Box::new(adoption)));
        }
        Err(AdoptError::Gone(Some(ending))) => ending,
        Err(AdoptError::Gone(None)) => failed("its process ended while no supervisor ran".to_owned()),
        Err(error) => failed(format!("it could not be taken over: {error}")),
    };
    Some(Found::Ended(Box::new(PastGuest { spec, ending })))
}

fn failed(why: String) -> Ending {
    Ending { reason: EndReason::Failed(why), details: Vec::new() }
}

/// Returns what stands for resources that the earlier supervisor was about to publish when it was
/// killed: nothing, with a generation above all that it has sent. It counted changes, of which
/// there are fewer than milliseconds.
fn unknown_resources() -> Resources {
    Resources::new(Generation(Moment::now().ns() / 1_000_000))
}
