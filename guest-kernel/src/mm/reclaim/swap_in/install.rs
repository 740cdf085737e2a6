//! Installing pages: maps what has been loaded or read, if it is still wanted.
#![allow(unsafe_code, reason = "loads the contents of a frame, and drops what a swap entry names")]

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, to_usize};

use super::caller::Caller;
use super::plan::{ReadPlan, slot_of, swap_entry_at};
use super::read_ahead::Progress;
use super::read_frames::ReadFrames;
use crate::config::FAULT_AROUND_PAGES;
use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::{PageState, Restored};
use crate::mm::reclaim::Reclaimer;
use crate::mm::reclaim::scan::balance::PageKind;
use crate::mm::reclaim::scan::hand::BATCH;
use crate::mm::reclaim::swap::compressed_pool::MAX_FRAMES;
use crate::mm::reclaim::swap::disk::DiskError;
use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
use crate::mm::reclaim::swap::slot_map::{SlotContents, SlotNumber};
use crate::mm::reclaim::swap::swap_disk::SwapDisk;
use crate::mm::reclaim::swap::{LoadError, SparseZspage};
use crate::mm::{FRAMES, SPACE, Space, fault};

/// The largest distance between two evictions that count as made at the same time: the hand's batch
/// and those beside it.
const TOGETHER: u64 = 4 * BATCH as u64;

/// A page that was not loaded, and the frame that was to hold it.
pub(super) struct NotLoaded {
    pub(super) block: Block,
    pub(super) error: LoadError,
}

impl Reclaimer {
    /// Maps a page again that is being evicted.
    pub(super) fn keep(&mut self, at: u64) {
        let page = at..at + FRAME_BYTES;
        self.cancel(&page);
        let mut space = SPACE.lock();
        space.abandon_collapse(&page);
        if space.regions.find(at).is_some()
            && let Some(tables) = space.tables_mut()
        {
            tables.reinstate(at);
        }
    }

    /// Plans a read for the page at `at`. Returns `None` when the page is not on disk any more.
    pub(super) fn plan_read(&mut self, at: u64) -> Option<ReadPlan> {
        self.swap_in.plan(self.swap.disk.as_ref()?, at)
    }

    /// Begins to read what follows `plan`, if that is worth it.
    pub(super) fn read_on(&mut self, plan: &ReadPlan) {
        if let Some(swap) = &self.swap.disk {
            self.swap_in.read_on(swap, plan);
        }
    }

    /// Installs what was read ahead from a slot, for the page at `at`, once the read has ended.
    pub(super) fn install_read_ahead(&mut self, at: u64, slot: SlotNumber, caller: Caller) -> Progress {
        let Some(swap) = &self.swap.disk else { return Progress::None };
        let progress = self.swap_in.progress(swap, slot);
        if matches!(progress, Progress::Ended)
            && let Some(mut ahead) = self.swap_in.take(swap, slot)
        {
            self.swap_in.read_on(swap, &ahead.plan); // so that the disk has work meanwhile
            // A zspage that is not what was written stays on disk: the thread that reads it meets
            // the error.
            let _ = self.install(&ahead.plan, &mut ahead.frames, caller.touched(at));
        }
        progress
    }

    /// Fills `block` with the contents of the page at `at`, which are in memory, and maps it. Does
    /// the same for neighbours of the page while frames can be spared.
    pub(super) fn load(&mut self, at: u64, block: Block, caller: Caller) -> Result<(), NotLoaded> {
        let mut space = SPACE.lock();
        let Some(entry) = swap_entry_at(&space, at) else {
            return Err(NotLoaded { block, error: LoadError::Elsewhere });
        };
        self.load_page(&mut space, at, entry, block, caller)?;
        self.load_neighbours(&mut space, at, entry);
        Ok(())
    }

    fn load_page(
        &mut self,
        space: &mut Space,
        at: u64,
        entry: SwapEntry,
        mut block: Block,
        caller: Caller,
    ) -> Result<(), NotLoaded> {
        // SAFETY: the entry was found in the page table under the lock that is held.
        match unsafe { self.swap.load(entry, contents_mut(&mut block)) } {
            Ok(()) => {
                self.restore_page(space, at, block, entry, caller);
                Ok(())
            }
            Err(error) => Err(NotLoaded { block, error }),
        }
    }

    /// Loads pages around `page` that were evicted at about the same time, which `entry` says. A
    /// fault costs several times what decompressing a page does. But this is a guess, so it uses
    /// only frames that can be spared.
    fn load_neighbours(&mut self, space: &mut Space, page: u64, entry: SwapEntry) {
        let first = page - page % (FAULT_AROUND_PAGES * FRAME_BYTES);
        for neighbour in (0..FAULT_AROUND_PAGES).map(|number| first + number * FRAME_BYTES) {
            let Some(PageState::Swapped(other)) = space.tables().map(|tables| tables.page_state(neighbour)) else {
                continue;
            };
            if !matches!(other.stored, Stored::Filled(_) | Stored::Compressed(_)) {
                continue;
            }
            if entry.distance(other.count).min(other.distance(entry.count)) > TOGETHER {
                continue;
            }
            let Some(block) = fault::spare_block(BlockSize::Frame, Purpose::Committed) else { return };
            if let Err(NotLoaded { block, .. }) = self.load_page(space, neighbour, other, block, Caller::Prefetch) {
                FRAMES.free_committed(block);
            }
        }
    }

    /// Maps a page whose contents are in `block`, and drops what was stored of it.
    fn restore_page(&mut self, space: &mut Space, at: u64, block: Block, entry: SwapEntry, caller: Caller) {
        let is_touched = caller == Caller::Fault;
        self.scanner.count_restore(is_touched);
        let age = self.scanner.arrive(PageKind::Anonymous, Some(entry), is_touched);
        let is_incompressible = matches!(entry.stored, Stored::OnDisk(_));
        if let Space { regions, tables: Some(tables), .. } = space
            && let Some(region) = regions.find_mut(at)
        {
            region.restores += 1;
            let access = region.access;
            tables.restore(at, block, Restored { age, is_incompressible, access });
        }
        space.regions.draw(at, FrameCount(1));
        // SAFETY: the page table entry maps the page now.
        unsafe { self.forget(entry) };
    }

    /// Installs what was read, except for slots that have changed meanwhile. `touched` is the page
    /// that a thread waits for.
    ///
    /// # Errors
    /// [`DiskError`] when the first zspage is not what was written.
    pub(super) fn install(
        &mut self,
        plan: &ReadPlan,
        frames: &mut ReadFrames,
        touched: Option<u64>,
    ) -> Result<(), DiskError> {
        let mut space = SPACE.lock();
        let mut place = 0;
        while place < frames.len() {
            let unchanged = self.swap.disk.as_ref().and_then(|swap| plan.unchanged(swap, place));
            match unchanged {
                None => place += 1,
                Some(SlotContents::Page) => {
                    let page = plan.page(place);
                    let is_there = slot_of(&space, page) == Some(plan.first.plus(place));
                    let entry = swap_entry_at(&space, page).filter(|_| is_there);
                    if let (Some(entry), Some(block)) = (entry, frames.take(place)) {
                        self.count_read(1);
                        let caller = if touched == Some(page) { Caller::Fault } else { Caller::Prefetch };
                        self.restore_page(&mut space, page, block, entry, caller);
                    }
                    place += 1;
                }
                Some(SlotContents::Zspage { pages, slots }) => {
                    if place + slots > frames.len() {
                        break; // there were not enough frames for all of it
                    }
                    let blocks =
                        core::array::from_fn(|frame| if frame < slots { frames.take(place + frame) } else { None });
                    let is_sound = self.install_zspage(&mut space, plan.first.plus(place), pages, blocks);
                    if place == 0 && !is_sound {
                        return Err(DiskError); // the other zspages are not wanted yet
                    }
                    place += slots;
                }
            }
        }
        Ok(())
    }

    /// Puts a zspage that was read into `blocks` into the compressed pool. Frees the blocks and
    /// returns `false` when it is not what was written.
    fn install_zspage(
        &mut self,
        space: &mut Space,
        slot: SlotNumber,
        pages: u16,
        mut blocks: [Option<Block>; MAX_FRAMES],
    ) -> bool {
        let slots = blocks.iter().flatten().count();
        self.count_read(slots);
        let is_sound = match space.tables_mut() {
            Some(tables) => self.swap.adopt(tables, slot, pages, &mut blocks[..slots]),
            None => false,
        };
        free_blocks(blocks);
        is_sound
    }

    /// Puts a sparse zspage that was read into `blocks` into the compressed pool. Returns whether
    /// its slots are free now.
    pub(super) fn install_sparse(
        &mut self,
        sparse: &SparseZspage,
        blocks: [Option<Block>; MAX_FRAMES],
        result: Result<(), DiskError>,
    ) -> bool {
        let mut space = SPACE.lock();
        let Some(pages) = self.swap.pages_of_sparse(sparse) else {
            free_blocks(blocks);
            return true; // another thread has read it
        };
        let is_sound = match result {
            Ok(()) => self.install_zspage(&mut space, sparse.slot, pages, blocks),
            Err(DiskError) => {
                free_blocks(blocks);
                false
            }
        };
        if !is_sound {
            self.swap.skip_sparse(sparse);
        }
        is_sound
    }

    fn count_read(&mut self, slots: usize) {
        self.swap.disk.iter_mut().for_each(|swap| swap.count_read(slots));
    }

    /// Counts the error of a read. Returns it, unless what was to be read is not wanted any more.
    pub(super) fn read_error(&mut self, plan: &ReadPlan, error: DiskError) -> Result<(), DiskError> {
        let is_wanted = |swap: &&mut SwapDisk| plan.unchanged(swap, 0).is_some();
        match self.swap.disk.as_mut().filter(is_wanted) {
            Some(swap) => {
                swap.count_error();
                Err(error)
            }
            None => Ok(()),
        }
    }
}

fn free_blocks(blocks: [Option<Block>; MAX_FRAMES]) {
    blocks.into_iter().flatten().for_each(|block| FRAMES.free_in_headroom(block));
}

/// Returns the contents of an owned frame.
fn contents_mut(block: &mut Block) -> &mut [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance_mut::<[u8; FRAME_SIZE]>(to_usize(block.first().address()));
    // SAFETY: the caller owns the block, which is mapped nowhere; the identity map reaches it.
    unsafe { &mut *pointer }
}
