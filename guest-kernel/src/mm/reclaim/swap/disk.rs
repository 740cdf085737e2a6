//! The disk interface of reclaim: a disk driver implements [`Disk`], for swap and for mapped files.

use aerostat_abi::units::FrameNumber;

use super::slot_map::{CLUSTER, SlotNumber};

/// Most frames in one transfer.
pub(crate) const MAX_TRANSFER: usize = CLUSTER;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// Names a transfer that has been submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) usize);

/// The error of a transfer that failed. Part of what it was to change may have been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskError;

/// A disk of slots of 4 KiB.
pub(crate) trait Disk: Sync {
    /// Returns how many slots the disk has.
    fn slots(&self) -> u64;

    /// Starts a transfer between `frames`, at most [`MAX_TRANSFER`], and as many slots from `first`
    /// on. The caller must not use the frames until the transfer has ended. Never waits, and
    /// allocates nothing. Returns `None` when the disk's queue is full.
    fn submit(&self, direction: Direction, first: SlotNumber, frames: &[FrameNumber]) -> Option<Ticket>;

    /// Returns the result of a transfer, once; `None` while it is under way. Never waits.
    fn result(&self, ticket: Ticket) -> Option<Result<(), DiskError>>;

    /// Waits until the transfer may have ended, for a short time at most. The caller holds no lock,
    /// and asks for the result afterwards.
    fn wait(&self, ticket: Ticket);

    /// Waits until the queue may have room for another transfer, for a short time at most. The
    /// caller holds no lock, and submits again afterwards.
    fn wait_for_room(&self);
}
