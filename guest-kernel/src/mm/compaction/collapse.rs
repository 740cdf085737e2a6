//! Collapse: a table of 512 anonymous pages that are in use becomes a huge page again.
//!
//! Tables come from splitting huge pages and from times when no huge frame was free. A
//! [round](run_round) looks at every table: one that is full, and was in use both since the last
//! round and before it, is copied into a huge frame, as long as free memory stays above the high
//! watermark. Whether it was in use says the accessed bit of the table's own entry; those of its
//! pages are the policy's.
//!
//! All pages of the slot are revoked, as if they were about to leave, then copied in chunks, each
//! under the locks for some ten microseconds. Whoever touches one of the pages meanwhile gets all
//! of them back where they were ([`Reclaimer::abandon_collapse`]), and the slot waits for another
//! round. The reclaimer's thread runs before those of applications, so on one CPU that is rare, and
//! applications are kept from running for the length of the copy: 2 MiB, a few hundred
//! microseconds. It rests between two slots.

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_BYTES, HUGE_FRAMES};

use crate::arch::x86_64::cpu;
use crate::mm::address_space::RegionKind;
use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::frame_contents::copy_page;
use crate::mm::page_table::Slot;
use crate::mm::reclaim::scan::balance::PageKind;
use crate::mm::reclaim::{RECLAIMER, Reclaimer};
use crate::mm::{FRAMES, SPACE, Space};

/// Pages copied with upcalls masked.
const CHUNK: u64 = 32;

/// A slot on its way into a huge frame.
#[derive(Debug)]
pub(in crate::mm) struct Collapse {
    at: u64,
    /// Pages copied.
    copied: u64,
    block: Block,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// Slots that have tables and could have huge pages.
    pub(crate) tables: usize,
    /// Those that became huge pages.
    pub(crate) collapsed: usize,
    /// Those that would have, had a huge frame been to be had.
    pub(crate) waiting: usize,
}

/// Goes over all regions once. Calls `between` after each table, with no lock held, and not while
/// pages are revoked: whoever runs then would touch them.
pub(crate) fn run_round(mut between: impl FnMut()) -> Round {
    let mut round = Round::default();
    let mut at = 0;
    while let Some((slot, is_due)) = next_table(at) {
        at = slot + HUGE_BYTES;
        round.tables += 1;
        if is_due && begin(slot) {
            while RECLAIMER.lock().copy_chunk() {}
            round.collapsed += usize::from(slot_at(slot) == Slot::Huge);
        } else {
            round.waiting += usize::from(is_due);
        }
        between();
    }
    if round.tables > 0 {
        cpu::flush_tlb(); // accessed bits were cleared
    }
    round
}

/// The next slot from `at` on that has a table and lies wholly within its region, and whether it is
/// to be collapsed.
fn next_table(mut at: u64) -> Option<(u64, bool)> {
    loop {
        let mut space = SPACE.lock();
        let (slot, end) = space.regions.next_slot(PageKind::Anonymous, at)?;
        at = end;
        let tables = space.tables_mut()?;
        if slot.is_multiple_of(HUGE_BYTES) && end == slot + HUGE_BYTES && tables.slot(slot) == Slot::Table {
            return Some((slot, tables.visit_table(slot)));
        }
    }
}

fn slot_at(at: u64) -> Slot {
    SPACE.lock().tables().map_or(Slot::Empty, |tables| tables.slot(at))
}

/// Revokes the pages of a slot and finds a huge frame for them; `false` when there is none.
fn begin(at: u64) -> bool {
    let free = FRAMES.statistics().free;
    if free < FRAMES.watermarks().high.saturating_add(FrameCount(HUGE_FRAMES)) {
        return false;
    }
    // What is neither committed nor the kernel's floor: the pages' own frames come free only
    // afterwards.
    let Some(block) = FRAMES.allocate(BlockSize::Huge, Purpose::Spare) else { return false };
    RECLAIMER.lock().begin_collapse(at, block);
    true
}

impl Reclaimer {
    fn begin_collapse(&mut self, at: u64, block: Block) {
        let mut space = SPACE.lock();
        let may_be_huge = space
            .regions
            .find(at)
            .is_some_and(|region| region.kind == RegionKind::Anonymous && at + HUGE_BYTES <= region.range.end);
        match space.tables_mut() {
            Some(tables) if may_be_huge && tables.is_full(at) && self.collapse.is_none() => {
                tables.revoke_pages(at);
                cpu::flush_tlb();
                self.collapse = Some(Collapse { at, copied: 0, block });
            }
            _ => FRAMES.free(block), // it has changed meanwhile
        }
    }

    /// Copies some pages of the slot that is being collapsed, and maps the huge frame after the
    /// last; `false` when nothing is left to do.
    fn copy_chunk(&mut self) -> bool {
        let Some(mut collapse) = self.collapse.take() else { return false };
        let mut space = SPACE.lock();
        let end = (collapse.copied + CHUNK).min(HUGE_FRAMES);
        for page in collapse.copied..end {
            let revoked = space.tables().and_then(|tables| tables.revoked_page(collapse.at + page * FRAME_BYTES));
            let Some(revoked) = revoked else {
                debug_assert!(false, "a page came back while its slot was collapsed");
                continue;
            };
            copy_page(revoked.frame, &collapse.block, page);
        }
        collapse.copied = end;
        if end < HUGE_FRAMES {
            self.collapse = Some(collapse);
            return true;
        }
        self.end_collapse(&mut space, collapse);
        false
    }

    fn end_collapse(&mut self, space: &mut Space, collapse: Collapse) {
        let Collapse { at, block, .. } = collapse;
        let access = space.regions.find(at).map(|region| region.access);
        let (Some(access), Some(tables)) = (access, space.tables_mut()) else { return FRAMES.free(block) };
        match tables.replace_table(at, block, access, &mut |page| FRAMES.free(page)) {
            Ok(table) => {
                cpu::flush_tlb(); // the CPU may remember the way to the table
                FRAMES.free_committed_table(table);
                space.regions.restore_commit_charge(at, FrameCount(1));
                self.statistics.collapses += 1;
            }
            Err(block) => {
                tables.reinstate_pages(at);
                FRAMES.free(block);
            }
        }
    }

    /// Puts the pages of the slot that is being collapsed back into force if any of `pages` is one
    /// of them.
    pub(crate) fn abandon_collapse(&mut self, space: &mut Space, pages: &Range<u64>) {
        let is_hit = |collapse: &mut Collapse| collapse.at < pages.end && pages.start < collapse.at + HUGE_BYTES;
        if let Some(collapse) = self.collapse.take_if(is_hit) {
            if let Some(tables) = space.tables_mut() {
                tables.reinstate_pages(collapse.at);
            }
            FRAMES.free(collapse.block);
        }
    }
}

#[cfg(test)]
mod tests;
