//! What an application says about memory that it keeps: what it does not need any more, what it
//! will need soon, and what must not be written.
//!
//! The names and meanings are those of Linux's `madvise` (`MADV_DONTNEED`, `MADV_FREE`,
//! `MADV_WILLNEED`) and `mprotect`. Ranges are whole pages of one region.
#![allow(unsafe_code, reason = "zeroes part of a huge page that can't be split")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, to_usize};

use super::address_space::{Fate, RELEASE_SLOTS, pieces, release, slots};
use super::page_table::{Access, PageState, Slot};
use super::reclaim::swap::entry::Stored;
use super::reclaim::{self, RECLAIMER};
use super::{SPACE, Space, fault, slow_path};
use crate::arch::x86_64::cpu;

/// Where the pages of a region are, and what has happened in the region. All sizes are in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionStatistics {
    /// Pages of the region.
    pub pages: u64,
    /// Those in memory.
    pub resident: u64,
    /// Of these, those mapped by 2 MiB.
    pub huge: u64,
    /// Evicted pages that repeat one word, and so need no memory.
    pub filled: u64,
    /// Evicted pages in the compressed pool.
    pub compressed: u64,
    /// Evicted pages on the swap disk.
    pub on_disk: u64,
    /// Page faults since the region was created.
    pub faults: u64,
    /// Pages that were restored after an eviction, since the region was created.
    pub restores: u64,
}

/// Discards the contents of `range`: it reads as zero from now on, and its memory is free at once.
pub(crate) fn discard(range: &Range<u64>) {
    release(range, Fate::Discarded);
    slow_path::frames_freed(FrameCount::from_bytes_ceil(range.end.saturating_sub(range.start)));
}

/// Splits huge pages that extend beyond `range`, so that the part within can be released. Returns
/// the part of `range` that is left to release. Where there is no frame for a table, this zeroes
/// the part of the huge page and leaves it out instead. The caller keeps `space` locked until it
/// has released the range, because a slot may become a huge page again at any other time.
pub(super) fn cut_huge_pages(space: &mut Space, range: &Range<u64>) -> Range<u64> {
    let mut rest = range.clone();
    for (at, end) in cut_slots(range) {
        let is_huge = space.tables().is_some_and(|tables| tables.slot(at) == Slot::Huge);
        if is_huge && !space.split_huge(whole_slot(at).0) {
            zero_in_huge(space, at, end);
            rest = if at == rest.start { end..rest.end } else { rest.start..at };
        }
    }
    rest
}

/// Lets the pages of `range` be dropped instead of evicted, unless they are written to again. Until
/// then they read as they were, or as zero. While memory is free this costs nothing.
pub(crate) fn discard_lazily(range: &Range<u64>) {
    // Without reclaim no code would look for such pages.
    if !reclaim::is_on() {
        return discard(range);
    }
    for (at, end) in pieces(range, RELEASE_SLOTS * HUGE_BYTES) {
        let batch = at..end;
        let mut reclaimer = RECLAIMER.lock();
        let mut space = SPACE.lock();
        reclaimer.cancel(&batch);
        space.abandon_collapse(&batch);
        for (at, _) in cut_slots(&batch) {
            space.split_huge(whole_slot(at).0);
        }
        let Some(tables) = space.tables_mut() else { return };
        for (at, end) in slots(&batch) {
            if tables.slot(at) == Slot::Huge && (at, end) != whole_slot(at) {
                continue; // it could not be split
            }
            if tables.slot(at) == Slot::Table {
                for page in (at..end).step_by(FRAME_SIZE) {
                    tables.reinstate(page);
                    if let Some(entry) = tables.take_swapped(page) {
                        // SAFETY: the entry has just been removed from the page table.
                        unsafe { reclaimer.forget(entry) };
                    }
                }
            }
            tables.mark_discardable(at, end);
        }
        cpu::flush_tlb();
    }
}

/// Brings the pages of `range` into memory, from the first on, as far as there are frames to spare.
/// Returns how many more pages are in memory now.
pub(crate) fn prefetch(range: &Range<u64>) -> u64 {
    let before = resident(range);
    let mut page = range.start;
    while page < range.end && fault::prefetch(page) {
        let is_huge = SPACE.lock().tables().is_some_and(|tables| tables.slot(page) == Slot::Huge);
        page = if is_huge { whole_slot(page).1 } else { page + FRAME_BYTES };
    }
    resident(range).saturating_sub(before)
}

/// Sets how the whole region at `start` may be accessed.
pub(crate) fn protect(start: u64, access: Access) {
    let range = {
        let mut space = SPACE.lock();
        let Some(region) = space.regions.find_mut(start) else { return };
        region.access = access; // pages that are mapped from now on have it
        region.range.clone()
    };
    for (at, end) in slots(&range) {
        if let Some(tables) = SPACE.lock().tables_mut() {
            tables.protect(at, end, access);
        }
    }
    cpu::flush_tlb();
}

/// Returns the metrics of the region at `start`.
pub(crate) fn statistics(start: u64) -> RegionStatistics {
    let Some((range, mut metrics)) = SPACE.lock().regions.find(start).map(|region| {
        let (faults, restores) = (region.faults, region.restores);
        (region.range.clone(), RegionStatistics { faults, restores, ..RegionStatistics::default() })
    }) else {
        return RegionStatistics::default();
    };
    metrics.pages = (range.end - range.start) / FRAME_BYTES;
    for (at, end) in slots(&range) {
        let space = SPACE.lock();
        let Some(tables) = space.tables() else { break };
        let slot = tables.slot(at);
        if slot == Slot::Empty {
            continue;
        }
        for page in (at..end).step_by(FRAME_SIZE) {
            match tables.page_state(page) {
                PageState::Empty => {}
                PageState::Mapped | PageState::Leaving => {
                    metrics.resident += 1;
                    metrics.huge += u64::from(slot == Slot::Huge);
                }
                PageState::Swapped(entry) => match entry.stored {
                    Stored::InFile => {}
                    Stored::Filled(_) => metrics.filled += 1,
                    Stored::Compressed(_) => metrics.compressed += 1,
                    Stored::OnDisk(_) | Stored::CompressedOnDisk(..) => metrics.on_disk += 1,
                },
            }
        }
    }
    metrics
}

/// Counts the pages of `range` that are in memory.
fn resident(range: &Range<u64>) -> u64 {
    let resident_in = |(at, end): (u64, u64)| {
        let space = SPACE.lock();
        let Some(tables) = space.tables() else { return 0 };
        match tables.slot(at) {
            Slot::Empty => 0,
            Slot::Huge => (end - at) / FRAME_BYTES,
            Slot::Table => (at..end).step_by(FRAME_SIZE).filter(|&page| tables.is_mapped(page)).count() as u64,
        }
    };
    slots(range).map(resident_in).sum()
}

/// Returns the parts of `range` at its ends that are not a whole slot.
fn cut_slots(range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> + use<> {
    slots(range).filter(|&(at, end)| (at, end) != whole_slot(at))
}

/// Returns the slot that holds `address`, and its end.
fn whole_slot(address: u64) -> (u64, u64) {
    let at = address - address % HUGE_BYTES;
    (at, at + HUGE_BYTES)
}

/// Zeroes part of a huge page.
fn zero_in_huge(space: &Space, at: u64, end: u64) {
    let Some(first) = space.tables().and_then(|tables| tables.huge_frame(at)) else { return };
    let place = first.address() + at % HUGE_BYTES;
    let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(place));
    // SAFETY: the frames belong to the region, whose owner has discarded these bytes and does not
    // use them meanwhile; the identity map reaches them.
    unsafe { pointer.write_bytes(0, to_usize(end - at)) };
}

#[cfg(test)]
mod tests;
