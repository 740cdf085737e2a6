//! Collapse: a table of 512 anonymous pages that are in use becomes a huge page again.
//!
//! Tables come from splitting huge pages and from times when no huge frame was free. A
//! [scan](collapse_tables) visits every table. One that is full, and was in use both since the last
//! scan and before it, is copied into a huge frame, as long as free memory stays above the high
//! watermark. The accessed bit of the table's own entry says whether it was in use; those of its
//! pages belong to the policy.
//!
//! All pages of the slot are revoked, as if they were being evicted, then copied in chunks, each
//! under the lock of the address space for some ten microseconds. A thread that touches one of the
//! pages meanwhile gets all of them back where they were ([`Space::abandon_collapse`]), and the
//! slot waits for another scan. The thread that collapses runs before those of applications, so on
//! one CPU that is rare, and applications are kept from running for the length of the copy: 2 MiB,
//! a few hundred microseconds. It rests between two slots.

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_BYTES, HUGE_FRAMES};

use crate::arch::x86_64::cpu;
use crate::mm::address_space::RegionKind;
use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::frame_contents::copy_page;
use crate::mm::page_table::Slot;
use crate::mm::reclaim::scan::balance::PageKind;
use crate::mm::{FRAMES, SPACE, Space};

/// Pages copied with upcalls masked.
const CHUNK: u64 = 32;

/// The slot of an address space that is being collapsed, if any.
#[derive(Debug)]
pub(in crate::mm) struct Collapser {
    current: Option<Collapse>,
    /// Tables that became huge pages since boot.
    collapses: u64,
}

impl Collapser {
    pub(in crate::mm) const fn new() -> Self {
        Self { current: None, collapses: 0 }
    }
}

/// A slot that is being copied into a huge frame.
#[derive(Debug)]
struct Collapse {
    at: u64,
    /// Pages copied.
    copied: u64,
    block: Block,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableScan {
    /// Slots that have tables and could have huge pages.
    pub(crate) tables: usize,
    /// Those that became huge pages.
    pub(crate) collapsed: usize,
    /// Those that are due but found no huge frame.
    pub(crate) waiting: usize,
}

/// Returns how many tables became huge pages since boot.
pub(crate) fn collapses() -> u64 {
    SPACE.lock().collapser.collapses
}

/// Visits the tables of all regions once, and collapses those that are due. Calls `between` after
/// each table, with no lock held. It does not call it while pages are revoked, as a thread that
/// runs then would touch them.
pub(crate) fn collapse_tables(mut between: impl FnMut()) -> TableScan {
    let mut scan = TableScan::default();
    let mut at = 0;
    while let Some((slot, is_due)) = next_table(at) {
        at = slot + HUGE_BYTES;
        scan.tables += 1;
        if is_due && begin(slot) {
            while copy_chunk() {}
            scan.collapsed += usize::from(slot_at(slot) == Slot::Huge);
        } else {
            scan.waiting += usize::from(is_due);
        }
        between();
    }
    if scan.tables > 0 {
        cpu::flush_tlb(); // accessed bits were cleared
    }
    scan
}

/// Returns the next slot from `at` on that has a table and lies wholly within its region, and
/// whether it is due to collapse.
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

/// Finds a huge frame for the pages of a slot, and revokes them. Returns `false` when there is no
/// huge frame.
fn begin(at: u64) -> bool {
    let free = FRAMES.statistics().free;
    if free < FRAMES.watermarks().high.saturating_add(FrameCount(HUGE_FRAMES)) {
        return false;
    }
    // From what is neither committed nor the kernel's floor: the frames of the pages come free only
    // afterwards.
    let Some(block) = FRAMES.allocate(BlockSize::Huge, Purpose::Spare) else { return false };
    SPACE.lock().begin_collapse(at, block);
    true
}

/// Copies a chunk of the slot that is being collapsed, and maps the huge frame after the last one.
/// Returns `false` when nothing is left to do.
fn copy_chunk() -> bool {
    let mut space = SPACE.lock();
    let Some(mut collapse) = space.collapser.current.take() else { return false };
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
        space.collapser.current = Some(collapse);
        return true;
    }
    space.end_collapse(collapse);
    false
}

impl Space {
    /// Revokes the pages of a slot, to be copied into `block`. Frees the block if the slot has
    /// changed meanwhile.
    fn begin_collapse(&mut self, at: u64, block: Block) {
        let may_be_huge = self
            .regions
            .find(at)
            .is_some_and(|region| region.kind == RegionKind::Anonymous && at + HUGE_BYTES <= region.range.end);
        let is_idle = self.collapser.current.is_none();
        match self.tables_mut() {
            Some(tables) if may_be_huge && is_idle && tables.is_full(at) => {
                tables.revoke_pages(at);
                cpu::flush_tlb();
                self.collapser.current = Some(Collapse { at, copied: 0, block });
            }
            _ => FRAMES.free(block),
        }
    }

    /// Maps the huge frame in place of the table.
    fn end_collapse(&mut self, collapse: Collapse) {
        let Collapse { at, block, .. } = collapse;
        let access = self.regions.find(at).map(|region| region.access);
        let (Some(access), Some(tables)) = (access, self.tables_mut()) else { return FRAMES.free(block) };
        match tables.replace_table(at, block, access, &mut |page| FRAMES.free(page)) {
            Ok(table) => {
                cpu::flush_tlb(); // the CPU may remember the way to the table
                FRAMES.free_committed_table(table);
                self.regions.restore_commit_charge(at, FrameCount(1));
                self.collapser.collapses += 1;
            }
            Err(block) => {
                tables.reinstate_pages(at);
                FRAMES.free(block);
            }
        }
    }

    /// Maps the pages of the slot that is being collapsed again, if any of `pages` is one of them.
    pub(in crate::mm) fn abandon_collapse(&mut self, pages: &Range<u64>) {
        let is_hit = |collapse: &mut Collapse| collapse.at < pages.end && pages.start < collapse.at + HUGE_BYTES;
        if let Some(collapse) = self.collapser.current.take_if(is_hit) {
            if let Some(tables) = self.tables_mut() {
                tables.reinstate_pages(collapse.at);
            }
            FRAMES.free(collapse.block);
        }
    }
}

#[cfg(test)]
mod tests;
