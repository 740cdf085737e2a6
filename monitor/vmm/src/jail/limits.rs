//! Limits of resources (getrlimit(2)).

use aerostat_abi::units::FrameCount;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::credentials::User;

/// Descriptors of a process besides those of its disks: the machine's, the link's, the log's.
const DESCRIPTORS: u64 = 48;
/// Descriptors of a disk: its file, and the eventfds of its queues.
const DESCRIPTORS_OF_DISK: u64 = 8;
/// Threads: main, loader, vCPU, those that page; and one for each queue of a disk.
const THREADS: u64 = 16;
const THREADS_OF_DISK: u64 = 4;
/// Addresses besides guest memory: the program, stacks, and what an allocator reserves for each
/// thread.
const OWN_ADDRESSES: u64 = 4 << 30;
/// What a log may have.
const LOG_BYTES: u64 = 32 << 20;

/// What a process may use at most.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Guest memory.
    pub memory: FrameCount,
    /// Disks.
    pub disks: u64,
    /// The size of the largest file that the process writes, besides its log.
    pub largest_file: u64,
}

/// Sets the limits; those that have reached the wanted value stay.
pub(super) fn set(bounds: &Bounds, user: User) -> Result<(), Errno> {
    let threads = match user {
        User::OfProcess => Some(THREADS + THREADS_OF_DISK * bounds.disks),
        // All processes of the user count.
        User::Unprivileged | User::Supervisors => None,
    };
    let limits = [
        (Resource::Core, Some(0)),
        (Resource::Memlock, Some(0)),
        (Resource::Nofile, Some(DESCRIPTORS + DESCRIPTORS_OF_DISK * bounds.disks)),
        (Resource::Fsize, Some(bounds.largest_file.max(LOG_BYTES))),
        (Resource::As, Some(bounds.memory.bytes().saturating_add(OWN_ADDRESSES))),
        (Resource::Nproc, threads),
    ];
    limits.into_iter().try_for_each(|(resource, limit)| lower(resource, limit))
}

fn lower(resource: Resource, limit: Option<u64>) -> Result<(), Errno> {
    let Some(limit) = limit else { return Ok(()) };
    let present = rustix::process::getrlimit(resource);
    let limit = present.maximum.map_or(limit, |maximum| maximum.min(limit));
    setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
}
