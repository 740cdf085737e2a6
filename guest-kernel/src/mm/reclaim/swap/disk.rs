//! The disk under swap, as reclaim needs it: whoever drives one implements [`Disk`].

use aerostat_abi::units::FrameNumber;

use crate::mm::reclaim::swap::slot_map::SlotNumber;

/// Frames in one transfer at most.
pub(crate) const MAX_TRANSFER: usize = crate::mm::reclaim::swap::slot_map::CLUSTER;

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) usize);

/// The disk could not do it; what the transfer was to change may have been changed in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskError;

/// A disk of slots of 4 KiB.
pub(crate) trait Disk: Sync {
    /// Slots that there are.
    fn slots(&self) -> u64;

    /// Starts a transfer between `frames`, at most [`MAX_TRANSFER`], and as many slots from `first`
    /// on. Until the transfer has ended, the caller leaves the frames to the disk. Never waits and
    /// allocates nothing; `None` when too much is under way.
    fn submit(&self, direction: Direction, first: SlotNumber, frames: &[FrameNumber]) -> Option<Ticket>;

    /// How a transfer has ended, which is said once; `None` while it is under way. Never waits.
    fn result(&self, ticket: Ticket) -> Option<Result<(), DiskError>>;

    /// Waits until the transfer may have ended, or for a moment; the caller holds no lock, and
    /// looks.
    fn wait(&self, ticket: Ticket);

    /// Waits until there may be room for another transfer, or for a moment; the caller holds no
    /// lock, and tries.
    fn wait_for_room(&self);
}
