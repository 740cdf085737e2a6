//! Reclaim: pages that are not in use make room, and come back when they are touched.
//!
//! A hand goes round the pages of all regions. Each page it comes to is asked whether it was accessed since the last visit, and the
//! policy ([`aerostat_reclaim_policy`]) decides: keep, or evict. Evicted pages go to the [`compressed`] tier, unless they are one word over and over; a page
//! that does not compress stays where it is. A touch of an evicted page faults and brings it back ([`restore`]), with its neighbours
//! where memory allows ([`neighbours`]).
//!
//! Reclaim is off until [`start`]: a page that was evicted has no frame set aside to come back to, and with no disk behind the
//! compressed tier, a guest whose data stops compressing while its host is out of memory can only end. Who asks for that knows it.
//!
//! Work is done in small batches, each under the locks of reclaim and of the address space: at most [`BATCH`] evictions and one
//! TLB flush. Nothing here waits, and the way out of memory allocates nothing but single frames for the tier, out of what is kept
//! for the kernel. Lock order: reclaim before the address space before the frame allocator.
#![allow(unsafe_code, reason = "copies the contents of frames")]

pub(crate) mod compressed;
mod neighbours;
pub(crate) mod swap_entry;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_FRAMES, to_usize};
use aerostat_reclaim_policy::{Arrival, Name, Pass, Policy, Refault, Seen, Selected, Standing, Verdict};

use self::compressed::{CompressedTier, StoreError, TierStatistics};
use self::swap_entry::{Stored, SwapEntry};
use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::page_table::{PageState, Slot};
use super::{FRAMES, SPACE, Space};
use crate::sync::SpinLock;

/// Evictions in one batch, and so behind one TLB flush.
const BATCH: usize = 32;
/// Pages that one batch may visit.
const VISITS: usize = 256;
/// After so many rounds of the hand without a single eviction, huge pages that are in use are split: part of them may be cold.
const PATIENT_ROUNDS: u32 = 2;

pub(crate) static RECLAIMER: SpinLock<Reclaimer> = SpinLock::new(Reclaimer::new());

/// What reclaim has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReclaimStatistics {
    /// Pages in the compressed tier, and the frames they occupy.
    pub(crate) tier: TierStatistics,
    /// Pages that are one word over and over and occupy nothing.
    pub(crate) filled_pages: u64,
    /// Pages evicted since boot.
    pub(crate) evictions: u64,
    /// Pages brought back since boot.
    pub(crate) restores: u64,
    /// Of those, pages that were evicted shortly before: memory is too small for what goes on.
    pub(crate) refaults: u64,
    /// Pages that stayed because they don't compress.
    pub(crate) incompressible: u64,
}

impl ReclaimStatistics {
    /// Pages that are somewhere else than in memory.
    pub(crate) fn evicted_pages(&self) -> FrameCount {
        FrameCount(self.tier.pages + self.filled_pages)
    }
}

#[derive(Debug)]
pub(crate) struct Reclaimer {
    /// Where the hand is.
    hand: u64,
    /// `None` while reclaim is off.
    policy: Option<Selected>,
    tier: CompressedTier,
    statistics: ReclaimStatistics,
    rounds_in_vain: u32,
    /// What the hand came to since it last began, and pages in memory as the round before has found.
    round: Pass,
    resident: u64,
}

/// The figures now.
pub(crate) fn statistics() -> ReclaimStatistics {
    let reclaimer = RECLAIMER.lock();
    ReclaimStatistics { tier: reclaimer.tier.statistics(), ..reclaimer.statistics }
}

/// Evicts pages until `wanted` frames more are free, or nothing cold is left; says how many frames became free. None do while reclaim
/// is off.
pub(crate) fn reclaim(wanted: FrameCount) -> FrameCount {
    if RECLAIMER.lock().policy.is_none() {
        return FrameCount::ZERO;
    }
    let before = FRAMES.lock().statistics().free;
    let mut rounds = 0;
    loop {
        let batch = RECLAIMER.lock().run_batch();
        let freed = FRAMES.lock().statistics().free.saturating_sub(before);
        rounds += u32::from(batch.ended_round);
        // So many rounds give every page its chance, and huge ones are split meanwhile; after that there is nothing to be had.
        if freed >= wanted || rounds > Selected::PASSES + PATIENT_ROUNDS || batch.is_empty {
            return freed;
        }
    }
}

/// Forgets everything: each test machine begins without evicted pages, and evicts none unless its test is about that.
#[cfg(test)]
pub(crate) fn restart(is_enabled: bool) {
    *RECLAIMER.lock() = Reclaimer { policy: is_enabled.then(|| Name::default().policy()), ..Reclaimer::new() };
}

/// Switches reclaim on, with this policy; to be called before memory runs short.
pub(crate) fn start(policy: Name) {
    RECLAIMER.lock().policy = Some(policy.policy());
}

/// What one batch came to.
#[derive(Clone, Copy, Debug, Default)]
struct BatchResult {
    ended_round: bool,
    /// There is no region to look at.
    is_empty: bool,
}

impl Reclaimer {
    const fn new() -> Self {
        Self {
            hand: 0,
            policy: None,
            tier: CompressedTier::new(),
            statistics: ReclaimStatistics {
                tier: TierStatistics { pages: 0, frames: FrameCount::ZERO },
                filled_pages: 0,
                evictions: 0,
                restores: 0,
                refaults: 0,
                incompressible: 0,
            },
            rounds_in_vain: 0,
            round: Pass { visited: 0, evicted: 0 },
            resident: 0,
        }
    }

    /// Visits pages from the hand on, within one slot, and evicts what the policy gives up.
    fn run_batch(&mut self) -> BatchResult {
        let mut space = SPACE.lock();
        let Some((at, end)) = space.regions.next_slot(self.hand) else {
            if self.hand == 0 {
                return BatchResult { ended_round: true, is_empty: true };
            }
            self.hand = 0;
            self.end_round();
            return BatchResult { ended_round: true, is_empty: false };
        };
        self.hand = match space.tables().map_or(Slot::Empty, |tables| tables.slot(at)) {
            Slot::Empty => end,
            Slot::Huge => self.visit_huge(&mut space, at, end),
            Slot::Table => self.visit_pages(&mut space, at, end),
        };
        BatchResult::default()
    }

    fn end_round(&mut self) {
        self.rounds_in_vain = if self.round.evicted > 0 { 0 } else { self.rounds_in_vain + 1 };
        self.resident = self.round.visited;
        let round = core::mem::replace(&mut self.round, Pass { visited: 0, evicted: 0 });
        self.policy().pass_ended(round);
    }

    fn policy(&mut self) -> &mut Selected {
        self.policy.get_or_insert_with(|| Name::default().policy())
    }

    /// Pages that the last round found in memory.
    fn resident_pages(&self) -> u64 {
        self.resident.max(self.round.visited).max(1)
    }

    /// Splits a huge page that is cold, or that may be so in parts; the hand then goes over its pages.
    fn visit_huge(&mut self, space: &mut Space, at: u64, end: u64) -> u64 {
        let Some(tables) = space.tables_mut() else { return end };
        let policy = self.policy();
        let mut is_cold = false;
        let was_accessed =
            tables.visit_huge(at, &mut |standing, accessed| match policy.visited(Seen { standing, accessed }) {
                Verdict::Keep(standing) => standing,
                Verdict::Evict => {
                    is_cold = true;
                    standing
                }
            });
        self.round.visited += HUGE_FRAMES;
        if was_accessed {
            crate::cpu::flush_tlb();
        }
        if !is_cold && self.rounds_in_vain < PATIENT_ROUNDS {
            return end;
        }
        let table = FRAMES.lock().allocate_table(Purpose::Kernel);
        match table.map(|table| tables.split(at, table)) {
            Some(Ok(())) => {
                crate::cpu::flush_tlb();
                at // again, page by page
            }
            Some(Err(table)) => {
                FRAMES.lock().free(table);
                end
            }
            None => end,
        }
    }

    fn visit_pages(&mut self, space: &mut Space, at: u64, end: u64) -> u64 {
        let Some(tables) = space.tables_mut() else { return end };
        let end = end.min(at + VISITS as u64 * FRAME_BYTES);
        let mut victims = [0; BATCH];
        let mut count = 0;
        let mut is_stale = false;
        let mut page = at;
        while page < end && count < BATCH {
            let policy = self.policy();
            let visited =
                tables.visit_page(page, &mut |standing, accessed| policy.visited(Seen { standing, accessed }));
            is_stale |= visited.is_stale;
            self.round.visited += u64::from(visited.is_mapped);
            if visited.is_revoked {
                victims[count] = page;
                count += 1;
            }
            page += FRAME_BYTES;
        }
        if is_stale {
            crate::cpu::flush_tlb();
        }
        for &victim in &victims[..count] {
            self.evict(space, victim);
        }
        page
    }

    /// Moves a page, whose translation is revoked and flushed, out of memory; or lets it stay.
    fn evict(&mut self, space: &mut Space, page: u64) {
        let Some(tables) = space.tables_mut() else { return };
        let Some((frame, standing)) = tables.revoked_frame(page) else { return };
        let contents = page_at(frame);
        let stored = match filled_with(contents) {
            Some(pattern) => Ok(Stored::Filled(pattern)),
            None => self
                .tier
                .store(
                    contents,
                    || FRAMES.lock().allocate(BlockSize::Frame, Purpose::Kernel),
                    |block| FRAMES.lock().free(block),
                )
                .map(Stored::Compressed),
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.statistics.incompressible += u64::from(error == StoreError::Incompressible);
                tables.reinstate(page, standing);
                return;
            }
        };
        self.statistics.evictions += 1;
        self.statistics.filled_pages += u64::from(matches!(stored, Stored::Filled(_)));
        self.round.evicted += 1;
        let entry = SwapEntry { stored, standing, count: self.eviction_count() };
        if let Some(block) = tables.replace_revoked(page, entry) {
            FRAMES.lock().free(block);
        }
    }

    fn eviction_count(&self) -> u32 {
        u32::try_from(self.statistics.evictions & ((1 << 20) - 1)).unwrap_or(0)
    }

    /// Forgets where an evicted page was.
    pub(crate) fn forget(&mut self, entry: SwapEntry) {
        match entry.stored {
            Stored::Filled(_) => self.statistics.filled_pages -= 1,
            Stored::Compressed(place) => {
                self.tier.drop_page(place, |block| FRAMES.lock().free(block));
            }
        }
    }

    /// Fills `block` with the page's contents and maps it, and neighbours of the page too while memory is plenty. The block comes
    /// back when the page is not evicted (any more).
    fn restore(&mut self, page: u64, block: Block) -> Result<(), Block> {
        let mut space = SPACE.lock();
        let state = space.tables().map(|tables| tables.page_state(page));
        let Some(PageState::Swapped(entry)) = state else { return Err(block) };
        let distance = entry.distance(self.eviction_count());
        let resident = self.resident_pages();
        self.statistics.refaults += u64::from(distance < resident / 2);
        let refault = Refault { distance, resident, standing: entry.standing };
        let standing = self.policy().arrived(Arrival::Refault(refault));
        self.bring_back(&mut space, page, entry, block, standing);
        self.restore_neighbours(&mut space, page, entry);
        Ok(())
    }

    /// Maps `block` for an evicted page, with the contents that `entry` tells of.
    fn bring_back(&mut self, space: &mut Space, page: u64, entry: SwapEntry, mut block: Block, standing: Standing) {
        let contents = page_in(&mut block);
        match entry.stored {
            Stored::Filled(pattern) => {
                for word in contents.as_chunks_mut().0 {
                    *word = pattern.to_le_bytes();
                }
            }
            Stored::Compressed(place) => {
                assert!(self.tier.load(place, contents), "a page in the compressed tier was overwritten");
            }
        }
        self.statistics.restores += 1;
        if let Some(tables) = space.tables_mut() {
            tables.restore(page, block, standing);
        }
        self.forget(entry);
    }
}

/// Brings the evicted page at `page` back into `block`.
///
/// # Errors
/// The block, unused, when the page is not evicted (any more).
pub(crate) fn restore(page: u64, block: Block) -> Result<(), Block> {
    RECLAIMER.lock().restore(page, block)
}

/// The word that the page consists of, if it is one over and over.
fn filled_with(page: &[u8; FRAME_SIZE]) -> Option<u32> {
    let words = page.as_chunks::<4>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(u32::from_le_bytes(first))
}

fn page_at(frame: aerostat_abi::units::FrameNumber) -> &'static [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance::<[u8; FRAME_SIZE]>(to_usize(frame.address()));
    // SAFETY: the frame's translation is revoked and flushed, so nobody writes to it while the locks are held; the identity map
    // reaches it.
    unsafe { &*pointer }
}

fn page_in(block: &mut Block) -> &mut [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance_mut::<[u8; FRAME_SIZE]>(to_usize(block.first().address()));
    // SAFETY: the block is owned by the caller and mapped nowhere else; the identity map reaches it.
    unsafe { &mut *pointer }
}

#[cfg(test)]
mod tests;
