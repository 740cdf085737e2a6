//! The disk as swap and mapped files see it: slots of 4 KiB, the last one perhaps shorter, and
//! tickets that can be copied, as several threads may wait for one transfer.

use aerostat_abi::units::{FRAME_BYTES, FrameNumber};

use super::device::BlockDevice;
use super::disks::device;
use super::requests::{self, SECTOR_BYTES, Sectors};
use super::role::DiskId;
use crate::arch::x86_64::cpu;
use crate::config::DISK_PATIENCE_NS;
use crate::mm::pinned;
use crate::mm::reclaim::swap::disk::{self, Direction, Disk, DiskError, MAX_TRANSFER};
use crate::mm::reclaim::swap::slot_map::{CLUSTER, SlotMap, SlotNumber};
use crate::thread;
use crate::time::Instant;

const SECTORS_PER_SLOT: u64 = FRAME_BYTES / SECTOR_BYTES;

const _: () = assert!(MAX_TRANSFER <= requests::MAX_FRAMES);

/// Returns the disk to swap to with metadata for its slots, if there is such a disk and memory for
/// them.
pub(crate) fn disk() -> Option<(&'static dyn Disk, SlotMap)> {
    let disk: &dyn Disk = device(DiskId::Swap)?;
    let slots = SlotMap::usable(disk.slots());
    if slots == 0 {
        log::warn!(
            "swap: the disk has {} slots of 4 KiB, less than the {CLUSTER} that are written at once; it is not used",
            disk.slots()
        );
        return None;
    }
    if let Ok(mut metadata) = pinned::metadata(SlotMap::words(slots)) {
        return Some((disk, SlotMap::new(slots, &mut metadata)));
    }
    log::warn!("swap: there is no memory for the metadata of {slots} slots; the disk is not used");
    None
}

/// Returns the first sector of the first slot: the first page of a swap area has its signature, by
/// which the disk is known the next time.
fn start(disk: &BlockDevice) -> u64 {
    if disk.has_swap_area() { SECTORS_PER_SLOT } else { 0 }
}

impl Disk for BlockDevice {
    fn slots(&self) -> u64 {
        self.sectors().saturating_sub(start(self)) / SECTORS_PER_SLOT
    }

    fn submit(&self, direction: Direction, first: SlotNumber, frames: &[FrameNumber]) -> Option<disk::Ticket> {
        let direction = match direction {
            Direction::Read => requests::Direction::Read,
            Direction::Write => requests::Direction::Write,
        };
        let first = start(self) + u64::from(first.0) * SECTORS_PER_SLOT;
        let whole = frames.len() as u64 * SECTORS_PER_SLOT;
        let count = whole.min(self.sectors().saturating_sub(first));
        let sectors = Sectors { first, count: u32::try_from(count).ok()? };
        Self::submit(self, direction, sectors, frames).map(|ticket| disk::Ticket(ticket.into_slot()))
    }

    fn result(&self, ticket: disk::Ticket) -> Option<Result<(), DiskError>> {
        self.take_result(ticket.0).map(|result| result.map_err(|_| DiskError))
    }

    /// Several threads may wait for one write, and another may have taken its result: so no thread
    /// sleeps for long.
    fn wait(&self, ticket: disk::Ticket) {
        if cpu::is_masked() {
            cpu::relax(); // the caller can't sleep, and checks again
            return;
        }
        Self::wait(self, ticket.0, Some(Instant::now().after(DISK_PATIENCE_NS)));
    }

    fn wait_for_room(&self) {
        if cpu::is_masked() {
            cpu::relax(); // as above
        } else if !self.wait_for_any(Instant::now().after(DISK_PATIENCE_NS)) {
            thread::yield_now(); // all is done, and the threads that wait for it have to take the results
        }
    }
}
