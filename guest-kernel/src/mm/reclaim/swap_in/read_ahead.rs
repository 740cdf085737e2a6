//! Reading ahead: while a thread uses what it has read, the disk reads what follows.
//!
//! Where reads follow each other, the next one is begun before a thread asks for it
//! ([`SwapIn::read_on`]): up to [`MAX_READS`] at a time, and only into frames that can be spared.
//! Its pages are installed when the first of them is touched, and at that moment the next read
//! begins. So a thread that reads sequentially takes one fault for each read, and waits only if the
//! disk is slower than the thread. (Linux marks a page in the middle of what it has read ahead,
//! `PG_readahead`; here the fault is the mark.)
//!
//! The thread may stop. Then the read is dropped: by the second reclaim attempt that meets it, when
//! the region of its pages ends, or when nothing else is left to free. No data is lost: a slot
//! keeps its contents until they are installed, is checked again before that, and a read that fails
//! is repeated when a thread touches the page.

use core::ops::Range;

use super::caller::Caller;
use super::plan::{ReadPlan, swap_entry_at};
use super::read_frames::ReadFrames;
use super::window::ReadSequence;
use crate::mm::block::BlockSize;
use crate::mm::reclaim::swap::disk::{Disk, DiskError, Ticket};
use crate::mm::reclaim::swap::entry::Stored;
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::reclaim::swap::swap_disk::SwapDisk;
use crate::mm::{SPACE, fault};

/// Most reads that are under way or not used yet. Pages that are evicted in order go in two scans
/// of the hand, most of them in the first, so a thread that touches them in order follows two
/// streams.
const MAX_READS: usize = 2;

/// A read that no thread waits for yet.
pub(super) struct Ahead {
    pub(super) plan: ReadPlan,
    pub(super) frames: ReadFrames,
    ticket: Ticket,
    /// The result, once it is known.
    result: Option<Result<(), DiskError>>,
    /// A reclaim attempt has met it before.
    is_old: bool,
}

impl core::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ahead")
            .field("first", &self.plan.first)
            .field("count", &self.frames.len())
            .finish_non_exhaustive()
    }
}

impl Ahead {
    /// Returns the transfer to wait for; `None` when it has ended.
    fn under_way(&mut self) -> Option<Ticket> {
        if self.result.is_none() {
            self.result = self.plan.disk.result(self.ticket);
        }
        self.result.is_none().then_some(self.ticket)
    }
}

/// How far the read ahead of a slot has come.
pub(super) enum Progress {
    /// The slot is not read ahead.
    None,
    UnderWay(&'static dyn Disk, Ticket),
    /// The read has ended, well or not.
    Ended,
}

/// Reads from the swap disk: what follows what, and what is read ahead.
#[derive(Debug)]
pub(in crate::mm::reclaim) struct SwapIn {
    page_reads: ReadSequence,
    zspage_reads: ReadSequence,
    ahead: [Option<Ahead>; MAX_READS],
    /// Frames of reads that were dropped, since boot.
    dropped: u64,
}

impl SwapIn {
    pub(in crate::mm::reclaim) const fn new() -> Self {
        Self {
            page_reads: ReadSequence::new(),
            zspage_reads: ReadSequence::new(),
            ahead: [const { None }; MAX_READS],
            dropped: 0,
        }
    }

    /// Plans a read for the page at `at`. Returns `None` when the page is not on disk any more.
    pub(super) fn plan(&mut self, swap: &SwapDisk, at: u64) -> Option<ReadPlan> {
        let space = SPACE.lock();
        match swap_entry_at(&space, at)?.stored {
            Stored::OnDisk(_) => {
                let window = self.page_reads.window_at(at);
                let plan = ReadPlan::for_pages(swap, &space, at, window)?;
                self.page_reads.has_read_to(plan.end());
                Some(plan)
            }
            Stored::CompressedOnDisk(slot, _) => {
                let window = self.zspage_reads.window_at(slot.position());
                let plan = ReadPlan::for_zspages(swap, slot, window)?;
                self.zspage_reads.has_read_to(plan.end());
                Some(plan)
            }
            Stored::Filled(_) | Stored::Compressed(_) | Stored::InFile => None,
        }
    }

    /// Begins to read what follows `plan`, if that is likely to be wanted and frames can be spared.
    pub(super) fn read_on(&mut self, swap: &SwapDisk, plan: &ReadPlan) {
        if !plan.is_sequential() {
            return;
        }
        if self.free_place().is_none() {
            self.age_read_ahead();
        }
        let Some(place) = self.free_place() else { return };
        let Some(plan) = plan.next(swap, &SPACE.lock(), |slot| self.find(swap, slot).is_some()) else { return };
        let Some(first) = fault::spare_block(BlockSize::Frame, plan.purpose) else { return };
        let frames = ReadFrames::with(first, plan.least, plan.count, plan.purpose, Caller::Prefetch);
        let Ok(frames) = frames else { return };
        let Some(ticket) = frames.submit_read(plan.disk, plan.first) else { return }; // the disk has enough to do
        self.ahead[place] = Some(Ahead { plan, frames, ticket, result: None, is_old: false });
    }

    fn free_place(&self) -> Option<usize> {
        self.ahead.iter().position(Option::is_none)
    }

    /// Returns how far the read ahead of what begins in a slot has come.
    pub(super) fn progress(&mut self, swap: &SwapDisk, slot: SlotNumber) -> Progress {
        let Some(place) = self.find(swap, slot) else { return Progress::None };
        let Some(ahead) = &mut self.ahead[place] else { return Progress::None };
        match ahead.under_way() {
            Some(ticket) => Progress::UnderWay(ahead.plan.disk, ticket),
            None => Progress::Ended,
        }
    }

    /// Takes the read ahead of what begins in a slot, if it has succeeded. One that has failed is
    /// dropped.
    pub(super) fn take(&mut self, swap: &SwapDisk, slot: SlotNumber) -> Option<Ahead> {
        let place = self.find(swap, slot)?;
        let has_succeeded = self.ahead[place].as_ref()?.result == Some(Ok(()));
        self.ahead[place].take().filter(|_| has_succeeded)
    }

    /// Returns the place of the read of what begins in a slot.
    fn find(&self, swap: &SwapDisk, slot: SlotNumber) -> Option<usize> {
        let (_, version) = swap.slots.contents(slot)?;
        self.ahead.iter().position(|ahead| ahead.as_ref().is_some_and(|ahead| ahead.plan.includes(slot, version)))
    }

    /// Asks for the results of reads that have ended, which makes room in the disk's queue.
    pub(in crate::mm::reclaim) fn finish_reads(&mut self) {
        self.ahead.iter_mut().flatten().for_each(|ahead| _ = ahead.under_way());
    }

    /// Drops reads that the last call has met already, and marks the others.
    pub(in crate::mm::reclaim) fn age_read_ahead(&mut self) {
        self.drop_if(|ahead| core::mem::replace(&mut ahead.is_old, true));
    }

    /// Drops reads of pages in `pages`. Those under way are dropped when they have ended.
    pub(in crate::mm::reclaim) fn cancel(&mut self, pages: &Range<u64>) {
        self.drop_if(|ahead| {
            let is_cancelled = ahead.plan.reads_any_of(pages);
            ahead.is_old |= is_cancelled;
            is_cancelled
        });
    }

    /// Drops all reads that have ended. Returns one under way that a thread can wait for.
    pub(in crate::mm::reclaim) fn drop_read_ahead(&mut self) -> Option<Ticket> {
        let under_way = self.ahead.iter_mut().flatten().find_map(Ahead::under_way);
        self.drop_if(|_| true);
        under_way
    }

    /// Returns how many frames of dropped reads were freed since boot.
    pub(in crate::mm::reclaim) fn dropped_frames(&self) -> u64 {
        self.dropped
    }

    /// Frees the frames of reads for which `is_unwanted` is true, unless the disk still writes to
    /// them.
    fn drop_if(&mut self, mut is_unwanted: impl FnMut(&mut Ahead) -> bool) {
        for place in &mut self.ahead {
            if let Some(ahead) = place
                && is_unwanted(ahead)
                && ahead.under_way().is_none()
            {
                self.dropped += ahead.frames.len() as u64;
                *place = None;
            }
        }
    }

    /// Forgets what is read ahead, because the frames went with their test machine.
    #[cfg(test)]
    pub(in crate::mm::reclaim) fn leak(self) {
        core::mem::forget(self.ahead);
    }

    /// Returns how many frames that hold commit charges are read ahead.
    #[cfg(test)]
    pub(in crate::mm::reclaim) fn committed_ahead(&self) -> u64 {
        let is_committed = |ahead: &&Ahead| ahead.plan.purpose == crate::mm::Purpose::Committed;
        self.ahead.iter().flatten().filter(is_committed).map(|ahead| ahead.frames.len() as u64).sum()
    }

    /// Returns how many reads are under way or not used yet.
    #[cfg(test)]
    pub(in crate::mm::reclaim) fn reads_ahead(&self) -> usize {
        self.ahead.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests;
