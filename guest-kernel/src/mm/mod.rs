//! Memory management, from frames to the application's heap.
//!
//! * [`frames`]: the frame allocator as every CPU uses it; [`frame_allocator`]: which frames are
//!   free, committed or ballooned; [`frame_cache`]: a CPU's stock of free frames; [`block`]: owned
//!   frames; [`frame_set`], [`bit_tree`], [`bump`]: the parts of the allocator.
//! * [`page_table`]: slots and pages; [`address_space`]: regions, in a [`region_list`], and the
//!   decision behind a page fault; [`fault`]: carrying that decision out.
//! * [`advice`]: what an application says about its regions; [`shortage`]: what the application is
//!   told when memory runs short.
//! * [`reclaim`]: evicting pages and restoring them; [`compaction`]: moving pages so that huge
//!   frames become whole.
//! * [`slow_path`]: what is tried when no memory is free; [`kernel_heap`]: the kernel's own memory;
//!   [`sizing`]: what follows from the guest's current size.
//!
//! Memory is committed when it is allocated, and its frames are allocated when it is first touched.
//! [`map_region`] creates a region and [`unmap_region`] ends it. Lock order: [`reclaim`] before
//! [`SPACE`] before [`FRAMES`].
#![allow(unsafe_code, reason = "zeroing frames and adopting the boot page tables need raw addresses")]

pub(crate) mod address_space;
pub(crate) mod advice;
pub(crate) mod background;
mod bit_tree;
pub(crate) mod block;
pub(crate) mod bump;
pub(crate) mod compaction;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod frame_allocator;
mod frame_cache;
pub(crate) mod frame_set;
mod frames;
mod kernel_heap;
pub(crate) mod page_table;
#[cfg(target_os = "none")]
pub(crate) mod pinned;
mod poison;
pub(crate) mod pressure;
pub(crate) mod reclaim;
mod region_list;
pub(crate) mod shortage;
mod sizing;
pub(crate) mod slice;
pub(crate) mod slow_path;
#[cfg(target_os = "none")]
pub(crate) mod start;
mod watermarks;

use core::fmt;
use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, to_usize};

use block::Contents;
pub(crate) use block::{Block, BlockSize};
pub(crate) use fault::FaultCounts;
#[cfg(any(test, all(feature = "host-bench", not(target_os = "none"))))]
pub(crate) use frame_allocator::FrameAllocator;
pub(crate) use frame_allocator::FrameStatistics;
pub(crate) use frame_allocator::Purpose;
pub(crate) use frames::Frames;
pub(crate) use kernel_heap::KernelHeap;

use self::address_space::{Region, RegionKind, Regions};
use self::page_table::{Collected, PageTables, Slot};
use self::region_list::InsertError;
use crate::arch::x86_64::cpu;
use crate::sync::SpinLock;

/// The frame allocator. It is empty until memory has been set up.
pub(crate) static FRAMES: Frames = Frames::new();

/// The one address space.
pub(crate) static SPACE: SpinLock<Space> = SpinLock::new(Space { regions: Regions::new(), tables: None });

/// Slots that are released with one TLB flush and one hold of the locks: 16 MiB.
const RELEASE_SLOTS: u64 = 8;

/// The error of an allocation for which every step of the slow path found too little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

/// Regions and page tables.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) regions: Regions,
    tables: Option<PageTables>,
}

impl Space {
    pub(crate) fn tables(&self) -> Option<&PageTables> {
        self.tables.as_ref()
    }

    pub(crate) fn tables_mut(&mut self) -> Option<&mut PageTables> {
        self.tables.as_mut()
    }

    /// Splits the huge page at `at` into a table of pages. Returns `false` when there is no huge
    /// page at `at`, or no frame for the table.
    pub(crate) fn split_huge(&mut self, at: u64) -> bool {
        let Some(tables) = self.tables.as_mut() else { return false };
        if tables.slot(at) != Slot::Huge {
            return false;
        }
        // A region's commit charge includes a table for each of its slots.
        let Some(table) = FRAMES.allocate_table(Purpose::CommittedReserve) else { return false };
        if let Err(table) = tables.split(at, table) {
            FRAMES.free_committed_table(table);
            return false;
        }
        self.regions.draw(at, FrameCount(1));
        cpu::flush_tlb();
        true
    }
}

/// An owned commit charge for a region. Dropping it uncharges the commit, unless a region has taken
/// it over.
#[derive(Debug)]
pub(crate) struct CommitCharge {
    frames: FrameCount,
    bytes: u64,
}

impl CommitCharge {
    /// Charges the commit for `bytes` more of a region, rounded up to whole pages. May wait for the
    /// host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when it can't be made.
    pub(crate) fn for_region(bytes: u64) -> Result<Self, OutOfMemory> {
        let bytes = bytes.max(1).checked_next_multiple_of(FRAME_BYTES).ok_or(OutOfMemory)?;
        Self::of(Region::commit_charge_for(bytes), bytes)
    }

    /// Charges `frames` frames for `bytes` of a region. May wait for the host.
    ///
    /// # Errors
    /// [`OutOfMemory`] when it can't be made.
    fn of(frames: FrameCount, bytes: u64) -> Result<Self, OutOfMemory> {
        slow_path::charge_commit(frames)?;
        Ok(Self { frames, bytes })
    }

    /// Returns how many bytes of a region the charge is for.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the charged frames. The caller is now responsible for drawing on them and uncharging
    /// them.
    fn take_over(self) -> FrameCount {
        let frames = self.frames;
        core::mem::forget(self);
        frames
    }
}

impl Drop for CommitCharge {
    fn drop(&mut self) {
        FRAMES.uncharge_commit(self.frames);
    }
}

/// Creates a region of at least `bytes` bytes in `within`. Its memory is committed now, and its
/// frames are allocated when they are touched. Returns the region's first address.
///
/// # Errors
/// [`OutOfMemory`] when the commit charge is refused.
pub(crate) fn map_region(within: Range<u64>, bytes: u64) -> Result<u64, OutOfMemory> {
    map_committed(within, CommitCharge::for_region(bytes)?)
}

/// Creates a region in `within` that takes over a commit charge. Returns its first address.
///
/// # Errors
/// [`OutOfMemory`] when no gap in `within` is large enough.
pub(crate) fn map_committed(within: Range<u64>, commit_charge: CommitCharge) -> Result<u64, OutOfMemory> {
    map_committed_as(RegionKind::Anonymous, within, commit_charge)
}

fn map_committed_as(kind: RegionKind, within: Range<u64>, commit_charge: CommitCharge) -> Result<u64, OutOfMemory> {
    let insert = |spare: &mut Option<Block>| {
        SPACE.lock().regions.insert(kind, within.clone(), commit_charge.bytes, commit_charge.frames, spare)
    };
    let start = with_spare_frame(insert)?;
    commit_charge.take_over();
    Ok(start)
}

/// Calls `insert`, and calls it again with a spare frame when the region list needs one. No lock is
/// held while this waits for the frame.
fn with_spare_frame<R>(mut insert: impl FnMut(&mut Option<Block>) -> Result<R, InsertError>) -> Result<R, OutOfMemory> {
    let mut result = insert(&mut None);
    if matches!(result, Err(InsertError::NoFrame)) {
        let mut spare = Some(frame_for_books()?);
        result = insert(&mut spare);
        spare.into_iter().for_each(|frame| FRAMES.free(frame));
    }
    result.map_err(|_| OutOfMemory)
}

/// Allocates a frame for the region list. It is charged like memory of the application, so that it
/// does not use up the frames that page tables depend on.
fn frame_for_books() -> Result<Block, OutOfMemory> {
    slow_path::charge_commit(FrameCount(1))?;
    slow_path::frame_for_fault(Purpose::CommittedPinned).inspect_err(|_| FRAMES.uncharge_commit(FrameCount(1)))
}

/// Adds a region of the kernel at a fixed place.
///
/// # Errors
/// [`OutOfMemory`] when the place is in use, or there is no memory for the region list.
#[cfg(target_os = "none")]
fn place_region(kind: RegionKind, range: &Range<u64>) -> Result<(), OutOfMemory> {
    with_spare_frame(|spare| SPACE.lock().regions.place(kind, range.clone(), spare))
}

/// Ends the region that begins at `start`: frees its memory and uncharges its commit.
pub(crate) fn unmap_region(start: u64) {
    let Some(range) = shorten(start, start) else { return };
    release(&range, Fate::Unmapped);
    let Some(region) = SPACE.lock().regions.remove(start, |frame| FRAMES.free(frame)) else { return };
    FRAMES.uncharge_commit(region.commit_charge);
    slow_path::memory_came();
}

/// Moves the end of the region at `start` up by as much as was charged. The caller has left room
/// behind the region. The old end is a multiple of 2 MiB, so no slot gets a second page table
/// charged.
pub(crate) fn extend_region(start: u64, commit_charge: CommitCharge) {
    let mut space = SPACE.lock();
    if let Some(region) = space.regions.find_mut(start) {
        debug_assert!(region.range.end.is_multiple_of(HUGE_BYTES), "a region that ends within a slot is not extended");
        region.range.end += commit_charge.bytes;
        region.taken_end = region.range.end;
        region.commit_charge = region.commit_charge.saturating_add(commit_charge.take_over());
    }
}

/// Moves the end of the region at `start` down to `end` and releases what was behind it. The new
/// end is a multiple of 2 MiB, so that no huge page is cut, and a page table is freed with the last
/// of its pages.
pub(crate) fn shrink_region(start: u64, end: u64) {
    debug_assert!(end > start && end.is_multiple_of(HUGE_BYTES), "a region can't end at {end:#x}");
    let Some(range) = shorten(start, end) else { return };
    let given_up = Region::commit_charge_for(range.end - start).saturating_sub(Region::commit_charge_for(end - start));
    let surplus = given_up.saturating_sub(release(&range, Fate::Unmapped));
    let mut space = SPACE.lock();
    if let Some(region) = space.regions.find_mut(start) {
        region.taken_end = end;
        region.commit_charge = region.commit_charge.saturating_sub(surplus);
    }
    FRAMES.uncharge_commit(surplus);
    drop(space);
    slow_path::memory_came();
}

/// Ends the region at `start` at `end`, and returns the range behind it. That range belongs to no
/// region from here on, and the caller must release it.
fn shorten(start: u64, end: u64) -> Option<Range<u64>> {
    let mut reclaimer = reclaim::RECLAIMER.lock();
    let mut space = SPACE.lock();
    let range = space.regions.shorten(start, end)?;
    reclaimer.cancel(&range);
    reclaimer.abandon_collapse(&mut space, &range);
    Some(range)
}

/// What becomes of a range whose contents are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No region covers it any more.
    Unmapped,
    /// It stays part of its region, whose commit charge gets the freed frames back.
    Discarded,
}

/// Unmaps `range`, frees what was mapped there and drops what was evicted. Returns how many frames
/// that freed. Only a range that is discarded may end within a huge page.
///
/// The locks are held for a whole batch: an eviction or a restore must not meet a slot that is half
/// released, and a slot must not change between the check and its release.
fn release(range: &Range<u64>, fate: Fate) -> FrameCount {
    let mut returned = FrameCount::ZERO;
    for (at, end) in pieces(range, RELEASE_SLOTS * HUGE_BYTES) {
        let batch = at..end;
        let mut reclaimer = reclaim::RECLAIMER.lock();
        let mut space = SPACE.lock();
        reclaimer.abandon_collapse(&mut space, &batch);
        let batch = if fate == Fate::Discarded { advice::cut_huge_pages(&mut space, &batch) } else { batch };
        let Space { regions, tables: Some(tables) } = &mut *space else { return returned };
        if slots(&batch).all(|(at, _)| tables.slot(at) == Slot::Empty) {
            continue;
        }
        reclaimer.cancel(&batch);
        for (at, end) in slots(&batch) {
            tables.revoke(at, end);
        }
        cpu::flush_tlb();
        for (at, end) in slots(&batch) {
            let mut frames = FrameCount::ZERO;
            tables.collect(at, end, &mut |collected| match collected {
                Collected::Page(block) => {
                    frames = frames.saturating_add(FrameCount(block.size().frames()));
                    match fate {
                        Fate::Unmapped => FRAMES.free_page(block),
                        Fate::Discarded => FRAMES.free_committed(block),
                    }
                }
                Collected::Table(block) => {
                    frames = frames.saturating_add(FrameCount(1));
                    match fate {
                        Fate::Unmapped => FRAMES.free(block),
                        Fate::Discarded => FRAMES.free_committed_table(block),
                    }
                }
                Collected::Evicted(entry) => reclaimer.forget(entry), // its commit charge stays with the region
            });
            if fate == Fate::Discarded {
                regions.restore_commit_charge(at, frames);
            }
            returned = returned.saturating_add(frames);
        }
    }
    returned
}

/// Returns the 2 MiB slots of `range`, each with its end.
fn slots(range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    pieces(range, HUGE_BYTES)
}

/// Returns `range` cut at the multiples of `bytes`.
fn pieces(range: &Range<u64>, bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
    let end = range.end;
    let mut at = range.start;
    core::iter::from_fn(move || {
        let piece = (at < end).then(|| (at, (at + 1).next_multiple_of(bytes).min(end)))?;
        at = piece.1;
        Some(piece)
    })
}

/// Zeroes a block's memory, unless it is known to be zero.
pub(crate) fn zero(block: &Block) {
    if block.contents() == Contents::Unknown {
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(block.first().address()));
        // SAFETY: the block is owned, so no other code uses its memory, and the identity map
        // reaches it at its own address.
        unsafe { core::ptr::write_bytes(pointer, 0, to_usize(block.size().bytes())) };
    }
}

/// Copies a frame to the given frame of a block. No thread can write to the source: its translation
/// has been revoked and flushed.
fn copy_page(from: FrameNumber, to: &Block, frame: u64) {
    debug_assert!(frame < to.size().frames());
    let source = core::ptr::with_exposed_provenance::<u8>(to_usize(from.address()));
    let target = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(to.first().address() + frame * FRAME_BYTES));
    // SAFETY: the identity map reaches both; the block is owned, so no other code uses it, and it
    // differs from the source frame, which belongs to a page.
    unsafe { core::ptr::copy_nonoverlapping(source, target, to_usize(FRAME_BYTES)) };
}

/// What the kernel knows about its memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryStatistics {
    /// Frames of the machine, ballooned ones included.
    pub total: FrameCount,
    /// The frame allocator's metrics.
    pub frames: FrameStatistics,
    /// Page faults resolved.
    pub faults: FaultCounts,
    /// Allocations and page faults that took the slow path, and those that failed there.
    pub slow_path: slow_path::SlowPathStatistics,
    /// Free memory in whole huge frames that the host backs.
    pub backed_free: FrameCount,
    /// What reclaim has done and holds.
    pub reclaim: reclaim::ReclaimStatistics,
    /// How long threads had to wait for memory.
    pub pressure: pressure::PressureStatistics,
    /// Pages moved by compaction.
    pub moved_pages: u64,
}

/// Returns the current metrics.
#[must_use]
pub(crate) fn statistics() -> MemoryStatistics {
    MemoryStatistics {
        total: total_frames(),
        frames: FRAMES.statistics(),
        faults: fault::counts(),
        slow_path: slow_path::statistics(),
        backed_free: FRAMES.backed_free(),
        reclaim: reclaim::statistics(),
        pressure: pressure::statistics(),
        moved_pages: compaction::moved_pages(),
    }
}

/// Recounts the frame allocator's accounts.
///
/// # Errors
/// Returns the first disagreement, as a sentence.
pub(crate) fn validate() -> Result<(), &'static str> {
    FRAMES.validate()
}

/// How much memory there is, and where it ends.
#[derive(Debug)]
struct Extent {
    total: FrameCount,
    end: FrameNumber,
}

static EXTENT: spin::Once<Extent> = spin::Once::new();

/// Returns the number of frames of the machine; zero until memory has been set up.
pub(crate) fn total_frames() -> FrameCount {
    EXTENT.get().map_or(FrameCount::ZERO, |extent| extent.total)
}

/// Returns the frame behind the last one; zero until memory has been set up.
pub(crate) fn memory_end() -> FrameNumber {
    EXTENT.get().map_or(FrameNumber(0), |extent| extent.end)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
