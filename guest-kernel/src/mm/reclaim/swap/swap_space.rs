//! Swap space: the compressed pool and the swap disk behind it.
#![allow(unsafe_code, reason = "a swap entry names an object of the compressed pool")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};

use super::compressed_pool::{CompressedPool, MAX_FRAMES, StoreError, Writeback};
use super::disk::Disk;
use super::entry::{Stored, SwapEntry};
use super::slot_map::{SlotContents, SlotNumber, SlotVersion};
use super::swap_disk::SwapDisk;
use crate::mm::FRAMES;
use crate::mm::block::Block;
use crate::mm::page_table::{PageState, PageTables};
use crate::mm::reclaim::scan::hand::BATCH;

/// Frames of the compressed pool beyond its bound with which eviction waits for the disk.
const POOL_SLACK: FrameCount = FrameCount(2 * BATCH as u64);

/// What has to happen before more anonymous pages can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing: there is room.
    Free,
    /// The disk has to finish a write.
    Busy,
    /// The disk is full. What is staged can't be written.
    Full,
}

/// Why the contents of an evicted page could not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadError {
    /// They are not in memory.
    Elsewhere,
    /// They were on the disk, which has returned something else than was written.
    Corrupt,
}

/// A zspage on disk that has fewer pages than slots.
pub(crate) struct SparseZspage {
    pub(crate) disk: &'static dyn Disk,
    pub(crate) slot: SlotNumber,
    /// How many slots it has.
    pub(crate) slots: usize,
    version: SlotVersion,
}

/// Where anonymous pages are evicted to.
#[derive(Debug)]
pub(crate) struct SwapSpace {
    pub(crate) pool: CompressedPool,
    pub(crate) disk: Option<SwapDisk>,
    /// Evicted pages that repeat one word.
    filled_pages: u64,
    pages_on_disk: u64,
    /// Pages that were found not to compress, since boot.
    incompressible: u64,
    /// A page has found no free slot since that was asked last.
    lacked_slot: bool,
}

/// What swap space holds, apart from the pool and the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SwapStatistics {
    pub(crate) filled_pages: u64,
    pub(crate) pages_on_disk: u64,
    pub(crate) incompressible: u64,
}

impl SwapSpace {
    pub(crate) const fn new() -> Self {
        Self {
            pool: CompressedPool::new(),
            disk: None,
            filled_pages: 0,
            pages_on_disk: 0,
            incompressible: 0,
            lacked_slot: false,
        }
    }

    pub(crate) fn statistics(&self) -> SwapStatistics {
        let Self { filled_pages, pages_on_disk, incompressible, .. } = *self;
        SwapStatistics { filled_pages, pages_on_disk, incompressible }
    }

    /// Stores the page at `address` in memory: as a pattern, or compressed.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub(crate) fn store(&mut self, address: u64, page: &[u8; FRAME_SIZE]) -> Result<Stored, StoreError> {
        if let Some(pattern) = filled_with(page) {
            self.filled_pages += 1;
            return Ok(Stored::Filled(pattern));
        }
        let stored = self.pool.store(address, page).map(Stored::Compressed);
        self.incompressible += u64::from(stored == Err(StoreError::Incompressible));
        stored
    }

    /// Stages a page for the disk. Returns `false` when there is no room for it.
    pub(crate) fn stage_page(&mut self, page: u64, frame: FrameNumber) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let has_room = disk.has_room(1);
        if has_room {
            disk.stage_page(page, frame);
        } else {
            self.lacked_slot |= disk.is_full();
        }
        has_room
    }

    /// Returns whether a page has found no free slot since the last call.
    pub(crate) fn take_lacked_slot(&mut self) -> bool {
        core::mem::take(&mut self.lacked_slot)
    }

    /// Fills `page` with the contents of an evicted page.
    ///
    /// # Errors
    /// [`LoadError`].
    ///
    /// # Safety
    /// A page table entry holds the swap entry now.
    pub(crate) unsafe fn load(&mut self, entry: SwapEntry, page: &mut [u8; FRAME_SIZE]) -> Result<(), LoadError> {
        match entry.stored {
            Stored::Filled(pattern) => {
                page.as_chunks_mut().0.fill(pattern.to_le_bytes());
                Ok(())
            }
            // SAFETY: the pool holds a page as long as a page table entry names it.
            Stored::Compressed(handle) if unsafe { self.pool.load(handle, page) } => Ok(()),
            Stored::Compressed(_) => {
                let Some(disk) = &mut self.disk else { panic!("a page in the compressed pool was overwritten") };
                disk.count_error();
                Err(LoadError::Corrupt)
            }
            Stored::OnDisk(_) | Stored::CompressedOnDisk(..) | Stored::InFile => Err(LoadError::Elsewhere),
        }
    }

    /// Drops the contents of an evicted page.
    ///
    /// # Safety
    /// A page table entry held the swap entry, and does not any more.
    pub(crate) unsafe fn drop_page(&mut self, entry: SwapEntry) {
        match (entry.stored, &mut self.disk) {
            (Stored::Filled(_), _) => self.filled_pages -= 1,
            // SAFETY: the pool holds a page until the page table entry that names it is replaced.
            (Stored::Compressed(handle), _) => unsafe { self.pool.drop_page(handle) },
            (Stored::OnDisk(slot), Some(disk)) => {
                self.pages_on_disk -= 1;
                disk.slots.drop_page(slot);
            }
            (Stored::CompressedOnDisk(slot, index), Some(disk)) => {
                self.pages_on_disk -= 1;
                disk.slots.drop_page_of_zspage(slot, usize::from(index));
            }
            (Stored::InFile | Stored::OnDisk(_) | Stored::CompressedOnDisk(..), _) => {}
        }
    }

    /// Returns whether there is room for anonymous pages. Submits what is staged if there is none.
    pub(crate) fn make_room(&mut self) -> Room {
        let is_pool_full = self.pool_surplus() > POOL_SLACK;
        let Some(disk) = &mut self.disk else { return Room::Free };
        if !is_pool_full && disk.make_room(1) {
            return Room::Free;
        }
        disk.submit();
        if disk.is_writing() { Room::Busy } else { Room::Full }
    }

    /// Begins to write back zspages beyond the bound of the pool.
    pub(crate) fn shrink_pool(&mut self) {
        let leaving = FrameCount(self.leaving() as u64);
        self.write_back(self.pool_surplus().saturating_sub(leaving));
    }

    /// Stages the oldest zspages for the disk: `wanted` frames, or a batch if that is less.
    pub(crate) fn write_back(&mut self, wanted: FrameCount) {
        let Some(disk) = &mut self.disk else { return };
        let wanted = to_usize(wanted.0).min(BATCH);
        let mut staged = 0;
        for _ in 0..BATCH {
            if staged >= wanted || !disk.make_room(MAX_FRAMES) {
                return;
            }
            let Some(writeback) = self.pool.begin_writeback() else { return };
            let frames = writeback.frames().as_slice().len();
            if disk.slots.has_run(frames) {
                disk.stage_zspage(writeback);
                staged += frames;
            } else {
                self.pool.cancel_writeback(writeback); // the next one may have fewer frames
            }
        }
    }

    /// Returns how many frames are on their way to the disk.
    pub(crate) fn leaving(&self) -> usize {
        self.disk.as_ref().map_or(0, SwapDisk::leaving)
    }

    /// Returns how many frames the pool has beyond its bound; none where there is no disk for them.
    fn pool_surplus(&self) -> FrameCount {
        let frames = self.pool.statistics().frames;
        if self.disk.is_some() {
            frames.saturating_sub(FRAMES.sizing().compressed_pool_bound)
        } else {
            FrameCount::ZERO
        }
    }

    /// Cancels the eviction of pages in `pages` that are on their way to the disk.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        if let Some(disk) = &mut self.disk {
            disk.cancel(pages);
        }
    }

    /// Records that a page has been written.
    pub(crate) fn end_page_write(&mut self, slot: SlotNumber) -> Stored {
        if let Some(disk) = &mut self.disk {
            disk.slots.record(slot, SlotContents::Page);
        }
        self.pages_on_disk += 1;
        Stored::OnDisk(slot)
    }

    /// Records that a zspage has been written: the page table entries of its pages name the disk
    /// from now on.
    pub(crate) fn end_writeback(&mut self, tables: &mut PageTables, writeback: Writeback, slot: SlotNumber) {
        let (pages, slots) = (writeback.pages(), writeback.frames().as_slice().len());
        if let Some(disk) = &mut self.disk {
            if pages == 0 {
                (0..slots).for_each(|place| disk.slots.free_slot(slot.plus(place)));
            } else {
                disk.slots.record(slot, SlotContents::Zspage { pages, slots });
            }
        }
        for (handle, page) in writeback.handles() {
            tables.move_swapped(page, Stored::Compressed(handle), on_disk(slot, handle.index()));
        }
        self.pages_on_disk += u64::from(pages.count_ones());
        self.pool.end_writeback(writeback);
    }

    /// Returns a zspage on disk that has fewer pages than slots.
    pub(crate) fn first_sparse(&mut self) -> Option<SparseZspage> {
        let SwapDisk { disk, slots: map, .. } = self.disk.as_mut()?;
        let slot = map.first_sparse()?;
        match map.contents(slot)? {
            (SlotContents::Zspage { slots, .. }, version) => Some(SparseZspage { disk: *disk, slot, slots, version }),
            (SlotContents::Page, _) => None,
        }
    }

    /// Returns the pages of a sparse zspage, a bit each, unless its slots were used again
    /// meanwhile.
    pub(crate) fn pages_of_sparse(&self, sparse: &SparseZspage) -> Option<u16> {
        match self.disk.as_ref()?.slots.contents(sparse.slot)? {
            (SlotContents::Zspage { pages, .. }, version) if version == sparse.version => Some(pages),
            _ => None,
        }
    }

    /// Leaves a sparse zspage alone that can't be read.
    pub(crate) fn skip_sparse(&mut self, sparse: &SparseZspage) {
        if let Some(disk) = &mut self.disk {
            disk.count_error();
            disk.slots.skip_sparse(sparse.slot);
        }
    }

    /// Makes a zspage of the pool out of what was read from the slots of one, and frees the slots.
    /// Returns `false` when the disk has returned something else than was written. The slots stay
    /// as they are then: the next thread that wants one of the pages meets the same error.
    pub(crate) fn adopt(
        &mut self,
        tables: &mut PageTables,
        slot: SlotNumber,
        pages: u16,
        blocks: &mut [Option<Block>],
    ) -> bool {
        let is_due = |index, page| match tables.page_state(page) {
            PageState::Swapped(entry) => entry.stored == on_disk(slot, index),
            _ => false,
        };
        let Some(adopted) = self.pool.adopt(blocks, pages, &is_due) else {
            self.disk.iter_mut().for_each(SwapDisk::count_error);
            return false;
        };
        for (handle, page) in adopted {
            tables.move_swapped(page, on_disk(slot, handle.index()), Stored::Compressed(handle));
        }
        self.pages_on_disk -= u64::from(pages.count_ones());
        if let Some(disk) = &mut self.disk {
            disk.slots.clear(slot);
        }
        true
    }
}

/// Returns where a page of a zspage on disk is stored.
fn on_disk(slot: SlotNumber, index: usize) -> Stored {
    Stored::CompressedOnDisk(slot, u8::try_from(index).unwrap_or(u8::MAX))
}

/// Returns the word that the page repeats, if it repeats one.
fn filled_with(page: &[u8; FRAME_SIZE]) -> Option<u32> {
    let words = page.as_chunks::<4>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(u32::from_le_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::{FRAME_SIZE, filled_with};

    #[test]
    fn a_page_that_repeats_one_word_is_recognized() {
        let mut page = [0xa5; FRAME_SIZE];
        assert_eq!(filled_with(&page), Some(0xa5a5_a5a5));
        page[FRAME_SIZE - 1] = 0;
        assert_eq!(filled_with(&page), None);
    }
}
