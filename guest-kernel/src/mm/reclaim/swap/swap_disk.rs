//! The swap disk: gathers what is evicted into clusters, and writes several at a time.
//!
//! A frame stays in use until its cluster is written. So a page that is touched meanwhile is simply
//! mapped again ([`SwapDisk::cancel`]), and one that can't be written has never been away. A
//! cluster that fails is written again page by page, where a zspage counts as one page. Slots that
//! fail then are retired. When as many slots in a row fail as a cluster has, the disk is full or
//! broken, and all its free slots are retired: no commit charge may rest on them. Eviction to the
//! disk allocates nothing and copies nothing.

use core::ops::Range;

use allocator_api2::boxed::Box;

use aerostat_abi::units::{FrameCount, FrameNumber};

use super::compressed_pool::Writeback;
use super::disk::{Disk, Ticket};
use super::slot_map::{CLUSTER, SlotMap};
use super::write::{Cluster, Step, Write};
use crate::mm::{FRAMES, KernelHeap};

pub(crate) use super::write::{Finished, Outgoing};

/// Clusters that are written at once, so that the disk always has the next one.
const MAX_WRITES: usize = 4;

/// The cluster that is being gathered, and those that are being written.
#[derive(Debug)]
struct Queue {
    open: Cluster,
    writes: [Write; MAX_WRITES],
}

/// What the swap disk has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskStatistics {
    /// Slots that can be used, and those in use.
    pub(crate) slots: u64,
    pub(crate) used_slots: u64,
    /// Slots written and read since boot.
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    /// Transfers that failed.
    pub(crate) errors: u64,
}

/// The swap disk.
pub(crate) struct SwapDisk {
    pub(crate) disk: &'static dyn Disk,
    pub(crate) slots: SlotMap,
    /// Too large to be moved on a stack.
    queue: Box<Queue, KernelHeap>,
    written: u64,
    read: u64,
    errors: u64,
    /// Slots whose writes failed since the last write that did not.
    failed_in_a_row: usize,
}

impl core::fmt::Debug for SwapDisk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SwapDisk").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

impl SwapDisk {
    /// Returns a swap disk with these slots; `None` when the kernel heap has no room for its queue.
    pub(crate) fn new(disk: &'static dyn Disk, slots: SlotMap) -> Option<Self> {
        let queue = Queue { open: Cluster::EMPTY, writes: [const { Write::NONE }; MAX_WRITES] };
        let queue = Box::try_new_in(queue, KernelHeap).ok()?;
        Some(Self { disk, slots, queue, written: 0, read: 0, errors: 0, failed_in_a_row: 0 })
    }

    pub(crate) fn statistics(&self) -> DiskStatistics {
        DiskStatistics {
            slots: self.slots.capacity() as u64,
            used_slots: self.slots.used() as u64,
            writes: self.written,
            reads: self.read,
            errors: self.errors,
        }
    }

    /// Counts slots that have been read.
    pub(crate) fn count_read(&mut self, slots: usize) {
        self.read += slots as u64;
    }

    /// Counts a transfer that failed, or one that returned something else than was written.
    pub(crate) fn count_error(&mut self) {
        self.errors += 1;
    }

    /// Returns how many frames are staged or being written.
    pub(crate) fn leaving(&self) -> usize {
        self.queue.open.len() + self.queue.writes.iter().map(Write::left).sum::<usize>()
    }

    /// Returns whether `count` more frames can be staged now: there is a free slot for each frame
    /// that is staged.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.queue.open.len() + count <= CLUSTER.min(self.slots.free())
    }

    /// Returns whether there is no free slot for another page.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.open.len() >= self.slots.free()
    }

    /// Returns [`Self::has_room`] after it has submitted as much as the disk can take.
    pub(crate) fn make_room(&mut self, count: usize) -> bool {
        if !self.has_room(count) {
            self.submit();
        }
        self.has_room(count)
    }

    /// Stages a page whose translation is revoked. The caller has checked that there is room.
    pub(crate) fn stage_page(&mut self, page: u64, frame: FrameNumber) {
        self.stage(Outgoing::Page(page), &[frame]);
    }

    /// Stages a zspage. The caller has checked that there is room.
    pub(crate) fn stage_zspage(&mut self, writeback: Writeback) {
        let frames = writeback.frames();
        self.stage(Outgoing::Zspage(writeback), frames.as_slice());
    }

    /// Adds frames to the cluster that is written next, and submits the cluster when it is full.
    fn stage(&mut self, outgoing: Outgoing, frames: &[FrameNumber]) {
        self.queue.open.push(outgoing, frames);
        if self.queue.open.len() == CLUSTER {
            self.submit();
        }
    }

    /// Begins to write what is staged, as far as the disk has slots and can take it now. A zspage
    /// for which there is no run of slots does not stop what is staged behind it.
    pub(crate) fn submit(&mut self) {
        let Queue { open, writes } = &mut *self.queue;
        let mut refused = 0;
        while refused < open.len()
            && let Some(write) = writes.iter_mut().find(|write| write.is_empty())
        {
            let least = open.unit(0);
            let Some((first, length)) = self.slots.take_run(least, open.len()) else {
                open.rotate();
                refused += least;
                continue;
            };
            let used = open.undivided(length);
            (used..length).for_each(|place| self.slots.free_slot(first.plus(place)));
            write.begin(self.disk, open, used, first);
            refused = 0;
        }
    }

    /// Returns a staged page or zspage for which there is no slot: it stays in memory.
    pub(crate) fn unstage(&mut self) -> Option<Finished> {
        let (outgoing, frames) = self.queue.open.pop()?;
        Some(Finished { outgoing, frames, slot: None })
    }

    /// Cancels the eviction of the pages in `pages`.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        self.queue.open.cancel(pages);
        for write in &mut self.queue.writes {
            write.cancel(pages);
        }
    }

    /// Returns the next page or zspage whose write has ended. The caller records in the slot map
    /// what its slot holds now, or frees the slot.
    pub(crate) fn next_finished(&mut self) -> Option<Finished> {
        for write in &mut self.queue.writes {
            match write.advance(self.disk) {
                None | Some(Step::UnderWay) => {}
                Some(Step::Failed) => self.errors += 1,
                Some(Step::Finished(mut finished, first)) => {
                    let slots = (0..finished.frames).map(|place| first.plus(place));
                    if finished.slot.is_none() {
                        self.errors += 1;
                        slots.for_each(|slot| self.slots.retire(slot));
                        let mut lost = finished.frames;
                        self.failed_in_a_row += finished.frames;
                        if self.failed_in_a_row >= CLUSTER {
                            lost += self.slots.retire_free();
                        }
                        FRAMES.remove_headroom(FrameCount(lost as u64));
                    } else {
                        self.failed_in_a_row = 0;
                        self.written += finished.frames as u64;
                        if finished.outgoing == Outgoing::Cancelled {
                            slots.for_each(|slot| self.slots.free_slot(slot));
                            finished.slot = None;
                        }
                    }
                    return Some(finished);
                }
            }
        }
        None
    }

    /// Returns whether anything is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.queue.writes.iter().any(|write| !write.is_empty())
    }

    /// Returns a write that a thread can wait for.
    pub(crate) fn write_under_way(&self) -> Option<Ticket> {
        self.queue.writes.iter().find_map(Write::ticket)
    }
}
