//! Guests are told of the host's resources, and ask for more. `docs/requests.md` describes both.
//!
//! Requests that guests have filed reach the scheduler before it decides. Updates leave when its
//! decisions are carried out: first the host revises the allocations, then it tells the guests.

use std::time::Duration;

use aerostat_abi::requests::{Component, Outcome, ResourceKind, Resources};
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::engine::Supervisor;
use super::guest::Guest;
use super::status::Event;
use crate::clock::Moment;
use crate::fleet::GuestSpec;
use crate::host::GuestHandle;

/// The resources of the host besides the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostResources {
    /// Processors that are online.
    pub processors: u64,
    /// The file system of the guests' swap disks.
    pub disk: Option<DiskSpace>,
}

/// The space on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total: u64,
    /// What is not used.
    pub free: u64,
}

/// What became of a guest's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTotals {
    /// Requests that were read.
    pub filed: u64,
    /// Those that were granted.
    pub granted: u64,
    /// Those that were granted in part.
    pub partly_granted: u64,
    /// Those that were denied.
    pub denied: u64,
    /// Grants that were not used.
    pub expired: u64,
    /// The longest time until a request was granted.
    pub longest_to_grant: Duration,
}

impl RequestTotals {
    /// Counts an outcome of a request that was first read `waited` ago.
    pub(super) fn count(&mut self, outcome: Outcome, waited: Duration) {
        match outcome {
            Outcome::Granted => {
                self.granted += 1;
                self.longest_to_grant = self.longest_to_grant.max(waited);
            }
            Outcome::PartlyGranted => self.partly_granted += 1,
            Outcome::Expired => self.expired += 1,
            outcome if outcome.is_denial() => self.denied += 1,
            _ => {}
        }
    }
}

/// What of the host's resources is a guest's for its whole life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    processors: u64,
    disk: u64,
}

impl Assigned {
    /// Returns what the guest of a fleet file gets.
    pub(super) fn of(spec: &GuestSpec) -> Self {
        Self { processors: 1, disk: spec.disks.swap.as_ref().map_or(0, |swap| swap.size.bytes()) }
    }
}

impl<G: GuestHandle> Supervisor<G> {
    /// Records the resources of the host besides the pool.
    pub fn record_resources(&mut self, host: HostResources) {
        self.host = host;
    }

    /// Passes on what guests ask for.
    pub(super) fn take_requests(&mut self, now: Moment) {
        for guest in self.guests.iter().filter(|guest| guest.is_running()) {
            for request in guest.exchange.filed() {
                self.scheduler.request(guest.id, request, now);
            }
        }
    }

    /// Tells each guest what has changed, answers to its requests included.
    pub(super) fn update_guests(&mut self, now: Moment) {
        let at = now.since(self.began);
        let capacity = without_noise(self.scheduler.capacity(), self.pool);
        let host = HostView { capacity, free: self.scheduler.free(), resources: self.host };
        for guest in self.guests.iter_mut().filter(|guest| guest.is_running()) {
            for answer in self.scheduler.answers(guest.id) {
                let event = guest.exchange.note(&guest.name, answer, now);
                self.events.extend(event.map(|what| Event { at, what }));
            }
            if let Some((resources, news)) = guest.exchange.update(host.as_told_to(guest)) {
                guest.send_resources(&resources, news);
            }
        }
    }
}

/// The host at one moment.
struct HostView {
    capacity: FrameCount,
    free: FrameCount,
    resources: HostResources,
}

impl HostView {
    /// Returns what a guest is told, without its generation and answers.
    fn as_told_to<G: GuestHandle>(&self, guest: &Guest<G>) -> Resources {
        let HostResources { processors, disk } = self.resources;
        let assigned = guest.assigned;
        let mut told = Resources::default();
        told.push(Component {
            kind: ResourceKind::Memory,
            total: self.capacity.bytes(),
            free: self.free.bytes(),
            assigned: guest.target.bytes(),
            most: guest.limits().max.bytes(),
        });
        told.push(Component {
            kind: ResourceKind::Processors,
            total: processors,
            free: processors,
            assigned: assigned.processors,
            most: assigned.processors,
        });
        if let Some(DiskSpace { total, free }) = disk {
            told.push(Component {
                kind: ResourceKind::Disk,
                total,
                free,
                assigned: assigned.disk,
                most: assigned.disk,
            });
        }
        told
    }
}

/// Returns what guests may hold in all, as they are told: the pool, or what the host can back of
/// it, in steps of a sixteenth. Other processes come and go all the time, and that is no news.
fn without_noise(capacity: FrameCount, pool: FrameCount) -> FrameCount {
    if capacity >= pool {
        return pool;
    }
    let step = (pool.0 / 16 / HUGE_FRAMES).max(1) * HUGE_FRAMES;
    FrameCount(capacity.0 / step * step)
}

#[cfg(test)]
mod tests {
    use super::without_noise;
    use aerostat_abi::units::FrameCount;

    #[test]
    fn noise_is_no_news() {
        let mib = FrameCount::from_mib;
        let told = |capacity| without_noise(mib(capacity), mib(500)).mib();
        assert_eq!((told(500), told(600)), (500, 500));
        assert_eq!((told(400), told(410)), (390, 390));
        assert_eq!(without_noise(mib(1), mib(2)), mib(0));
    }
}
