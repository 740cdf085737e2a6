//! Unmaps ranges, frees what was mapped there and drops what was evicted: when a region ends or
//! shrinks, and when the application discards a part of one.
#![allow(unsafe_code, reason = "drops what a swap entry names")]

use core::ops::Range;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};

use super::pieces::{pieces, slots};
use super::{SPACE, Space};
use crate::arch::x86_64::cpu;
use crate::mm::page_table::{Collected, Slot};
use crate::mm::{FRAMES, advice, reclaim};

/// Slots that are released with one TLB flush and one hold of the locks: 16 MiB.
pub(in crate::mm) const RELEASE_SLOTS: u64 = 8;

/// Ends the region at `start` at `end`, and returns the range behind it. That range belongs to no
/// region from here on, and the caller must release it.
pub(in crate::mm) fn shorten(start: u64, end: u64) -> Option<Range<u64>> {
    let mut reclaimer = reclaim::RECLAIMER.lock();
    let mut space = SPACE.lock();
    let range = space.regions.shorten(start, end)?;
    reclaimer.cancel(&range);
    space.abandon_collapse(&range);
    Some(range)
}

/// What becomes of a range whose contents are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Fate {
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
pub(in crate::mm) fn release(range: &Range<u64>, fate: Fate) -> FrameCount {
    let mut returned = FrameCount::ZERO;
    for (at, end) in pieces(range, RELEASE_SLOTS * HUGE_BYTES) {
        let batch = at..end;
        let mut reclaimer = reclaim::RECLAIMER.lock();
        let mut space = SPACE.lock();
        space.abandon_collapse(&batch);
        let batch = if fate == Fate::Discarded { advice::cut_huge_pages(&mut space, &batch) } else { batch };
        let Space { regions, tables: Some(tables), .. } = &mut *space else { return returned };
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
                // SAFETY: the entry has just been removed from the page table.
                Collected::Evicted(entry) => unsafe { reclaimer.forget(entry) }, // its charge stays with the region
            });
            if fate == Fate::Discarded {
                regions.restore_commit_charge(at, frames);
            }
            returned = returned.saturating_add(frames);
        }
    }
    returned
}
