//! Compaction: moves pages between frames so that whole huge frames come free, for huge pages and
//! for the balloon. [`collapse`] turns tables of pages into huge pages.
//!
//! There is no reverse map. Huge frames that are little used are *vacated*: nothing new is
//! allocated in them, and one walk over all regions moves the pages that page tables have in them
//! to other broken huge frames. Which ones are vacated, and whether it pays, is decided in
//! [`policy`]. Frames that no region maps are pinned and kept apart (see
//! [`super::frame_allocator`]), so vacated huge frames do come free.
//!
//! Pages are moved in batches of [`BATCH`], each under the lock of the address space and behind one
//! TLB flush. A thread can touch a page between flush and copy only by a fault, which waits for the
//! lock. A batch takes some ten microseconds.

pub(crate) mod collapse;
pub(crate) mod policy;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aerostat_abi::units::FRAME_BYTES;

use super::block::Block;
use super::frame_contents::copy_page;
use super::page_table::Slot;
use super::reclaim::scan::balance::PageKind;
use super::{FRAMES, SPACE, Space};
use crate::arch::x86_64::cpu;

/// Pages moved behind one TLB flush.
const BATCH: usize = 32;
/// Pages visited in one batch.
const VISITS: u64 = 256;

static MOVED_PAGES: AtomicU64 = AtomicU64::new(0);
/// A thread is compacting.
static IS_RUNNING: AtomicBool = AtomicBool::new(false);

/// Returns how many pages were moved since boot.
pub(crate) fn moved_pages() -> u64 {
    MOVED_PAGES.load(Ordering::Relaxed)
}

/// Makes up to `wanted_huge` huge frames wholly free, by moving the pages of huge frames that are
/// little used. Returns how many came free: none while another thread compacts. Calls `between`
/// after each batch, with no lock held, because a walk over all page tables can take long.
pub(crate) fn compact(wanted_huge: usize, mut between: impl FnMut()) -> usize {
    if IS_RUNNING.swap(true, Ordering::Acquire) {
        return 0;
    }
    let (before, _) = FRAMES.huge_frames();
    if FRAMES.vacate(wanted_huge) > 0 {
        for kind in [PageKind::Anonymous, PageKind::File] {
            let mut at = 0;
            while let Some(next) = move_batch(kind, at) {
                at = next;
                between();
            }
        }
        FRAMES.end_vacating();
    }
    let (after, _) = FRAMES.huge_frames();
    IS_RUNNING.store(false, Ordering::Release);
    after.saturating_sub(before)
}

/// Moves pages of a kind from `at` on, within one slot. Returns where to go on; `None` when nothing
/// more can be done.
fn move_batch(kind: PageKind, at: u64) -> Option<u64> {
    let mut space = SPACE.lock();
    let (at, end) = space.regions.next_slot(kind, at).filter(|_| FRAMES.is_vacating())?;
    if space.tables()?.slot(at) != Slot::Table {
        return Some(end);
    }
    let end = end.min(at + VISITS * FRAME_BYTES);
    let mut moves = [const { None::<(u64, Block)> }; BATCH];
    let (next, is_full) = begin_moves(&mut space, at, end, &mut moves)?;
    if moves[0].is_some() {
        cpu::flush_tlb();
    }
    for (page, block) in moves.into_iter().flatten() {
        end_move(&mut space, page, block);
    }
    (!is_full).then_some(next)
}

/// Revokes pages that are to be moved, and allocates the frame that each will get. Returns where
/// that ended, and whether no frame is left for another page.
fn begin_moves(space: &mut Space, at: u64, end: u64, moves: &mut [Option<(u64, Block)>]) -> Option<(u64, bool)> {
    let tables = space.tables_mut()?;
    let mut moves = moves.iter_mut();
    let mut page = at;
    while page < end {
        if tables.page_frame(page).is_some_and(|frame| FRAMES.is_vacated(frame)) {
            let Some(place) = moves.next() else { return Some((page, false)) };
            let Some(block) = FRAMES.replacement() else { return Some((page, true)) };
            tables.revoke_page(page);
            *place = Some((page, block));
        }
        page += FRAME_BYTES;
    }
    Some((end, false))
}

/// Copies a revoked page into its new frame, and maps it there.
fn end_move(space: &mut Space, page: u64, block: Block) {
    let Some(tables) = space.tables_mut() else { return FRAMES.free(block) };
    if let Some(revoked) = tables.revoked_page(page) {
        copy_page(revoked.frame, &block, 0);
    }
    let left_over = match tables.exchange_frame(page, block) {
        Ok(old) => {
            MOVED_PAGES.fetch_add(1, Ordering::Relaxed);
            old
        }
        Err(block) => block,
    };
    FRAMES.free(left_over);
}

#[cfg(test)]
mod tests;
