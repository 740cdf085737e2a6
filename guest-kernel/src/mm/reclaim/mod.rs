//! Reclaim: pages that are not in use make room, and come back when they are touched.
//!
//! A hand goes round the pages of all anonymous regions, another round those of files
//! ([`scan::hand`]; [`scan::balance`] says whose turn it is). Each page it comes to is asked
//! whether it was accessed since the last visit, and the policy ([`aerostat_reclaim_policy`])
//! decides: keep, or evict. A page of a file is simply dropped. Of the others, a page that is one
//! word over and over is kept nowhere; one that compresses goes to the [compressed
//! pool](swap::compressed_pool); the others, and the oldest of that compressed pool, go to disk
//! ([`swap::swap_disk`]), where the guest has one. A touch of an evicted page faults and brings it
//! back ([`swap_in::restore`]), with its neighbours where memory allows ([`swap_in`]).
//!
//! Anonymous pages stay until the guest has swap ([`start`]). Then commit charges may exceed memory
//! by what swap can hold, and no further, so a page that was committed can always be had by
//! evicting others.
//!
//! Work is done in small batches, each under the locks of reclaim and of the address space: at most
//! [`BATCH`] evictions and one TLB flush. The way out of memory allocates nothing but single frames
//! for the compressed pool, out of what is kept for it; waiting for the disk is done with no lock
//! held. Lock order: reclaim before the address space before the frame allocator.
#![allow(unsafe_code, reason = "copies the contents of frames")]

pub(crate) mod scan;
pub(crate) mod start;
pub(crate) mod swap;
pub(crate) mod swap_in;

use core::array;
use core::cmp::Ordering;
use core::ops::Range;

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_reclaim_policy::{Policy, Selected};

use self::scan::balance::{Balance, PageKind};
use self::scan::effort::{Effort, Efforts, Urgency};
use self::scan::hand::{BATCH, Hand, PATIENT_ROUNDS};
use self::scan::thrash::{Tally, ThrashDetector};
use self::swap::compressed_pool::{CompressedPool, CompressedPoolStatistics, MOST_FRAMES, StoreError};
use self::swap::entry::{Stored, SwapEntry};
use self::swap::slot_map::{Kept, SlotNumber};
use self::swap::swap_disk::{DiskStatistics, Finished, Leaver, SwapDisk};
use self::swap_in::frames::ReadAhead;
use self::swap_in::read_ahead::{Ahead, MOST_AHEAD};
use super::block::{Block, BlockSize};
use super::compaction::collapse::Collapse;
use super::frame_allocator::Purpose;
use super::page_table::{Collected, Slot};
use super::slice::Slice;
use super::{FRAMES, SPACE, Space};
use crate::arch::x86_64::cpu;
use crate::sync::SpinLock;
use crate::time::Instant;

/// Frames of the compressed pool beyond its bound, on their way to disk at the latest then.
const COMPRESSED_POOL_SLACK: FrameCount = FrameCount(2 * BATCH as u64);
pub(crate) static RECLAIMER: SpinLock<Reclaimer> = SpinLock::new(Reclaimer::new());

/// What reclaim has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReclaimStatistics {
    /// Pages in the compressed pool, and the frames they occupy.
    pub(crate) compressed_pool: CompressedPoolStatistics,
    /// The disk.
    pub(crate) disk: DiskStatistics,
    /// Pages on disk.
    pub(crate) pages_on_disk: u64,
    /// Pages that are one word over and over and occupy nothing.
    pub(crate) filled_pages: u64,
    /// Pages of files in memory.
    pub(crate) file_pages: u64,
    /// Pages evicted since boot, those of files included.
    pub(crate) evictions: u64,
    /// Pages brought back since boot.
    pub(crate) restores: u64,
    /// Of those, pages that somebody had touched; the others came along.
    pub(crate) touched_restores: u64,
    /// Of those, pages that were evicted shortly before: memory is too small for what goes on.
    pub(crate) refaults: u64,
    /// Pages that were found not to compress.
    pub(crate) incompressible: u64,
    /// Pages dropped since boot because nobody needed what was in them.
    pub(crate) discards: u64,
    /// More comes back right after its eviction than the guest can get on with.
    pub(crate) is_thrashing: bool,
    /// Times that this began.
    pub(crate) thrash_episodes: u64,
    /// Tables of pages that became huge pages.
    pub(crate) collapses: u64,
    /// What it looked at and made free, and for whom.
    pub(crate) efforts: Efforts,
    /// Pages in memory by age, as the hands' last rounds have found them.
    pub(crate) ages: [u64; AGES],
}

#[cfg(test)]
impl ReclaimStatistics {
    /// Pages that are somewhere else than in memory.
    pub(crate) fn evicted_pages(&self) -> FrameCount {
        FrameCount(self.compressed_pool.pages + self.filled_pages + self.pages_on_disk)
    }
}

#[derive(Debug)]
pub(crate) struct Reclaimer {
    /// The hand over anonymous memory; `None` while there is nowhere to evict to.
    anonymous: Option<Hand>,
    /// The hand over files; `None` while none are mapped.
    files: Option<Hand>,
    pub(super) balance: Balance,
    compressed_pool: CompressedPool,
    swap_disk: Option<SwapDisk>,
    /// Reads of pages and of groups of the compressed pool, each in their own order.
    page_reads: ReadAhead,
    zspage_reads: ReadAhead,
    /// What is read before it is touched.
    aheads: [Option<Ahead>; MOST_AHEAD],
    /// Frames that such reads have given back in vain.
    dropped_ahead: u64,
    pub(super) collapse: Option<Collapse>,
    pub(super) statistics: ReclaimStatistics,
    thrash: ThrashDetector,
}

/// The metrics now.
pub(crate) fn statistics() -> ReclaimStatistics {
    let mut reclaimer = RECLAIMER.lock();
    let is_thrashing = reclaimer.is_thrashing();
    let thrash_episodes = reclaimer.thrash.episodes();
    let disk = reclaimer.swap_disk.as_ref().map_or_else(DiskStatistics::default, SwapDisk::statistics);
    let compressed_pool = reclaimer.compressed_pool.statistics();
    ReclaimStatistics {
        compressed_pool,
        disk,
        is_thrashing,
        thrash_episodes,
        ages: reclaimer.ages(),
        ..reclaimer.statistics
    }
}

/// Whether there is anywhere to evict anonymous memory to.
pub(crate) fn is_on() -> bool {
    RECLAIMER.lock().anonymous.is_some()
}

/// Whether the guest is busy bringing back what it has just evicted: it has less memory than it
/// works on, and to take more from it would stop it.
pub(crate) fn is_thrashing() -> bool {
    RECLAIMER.lock().is_thrashing()
}

/// Evicts pages until `wanted` frames have become free, or nothing cold is left; says how many
/// have, whoever may have taken them since. None do where there is nowhere to evict to. Waits for
/// the disk if need be, unless the caller can't wait.
pub(crate) fn reclaim(wanted: FrameCount) -> FrameCount {
    reclaim_for(Urgency::Direct, wanted)
}

/// The same for a caller whom no thread of the application waits for.
pub(crate) fn reclaim_ahead(wanted: FrameCount) -> FrameCount {
    reclaim_for(Urgency::Background, wanted)
}

fn reclaim_for(urgency: Urgency, wanted: FrameCount) -> FrameCount {
    let hands = RECLAIMER.lock().hands();
    if hands == 0 {
        return FrameCount::ZERO;
    }
    // A thread that looked only at what is free would believe that nothing is to be had when others
    // are just faster.
    let before = RECLAIMER.lock().made_free();
    RECLAIMER.lock().pass_aheads();
    let freed = || FrameCount(RECLAIMER.lock().made_free().saturating_sub(before));
    let mut rounds = 0;
    let mut slice = Slice::begin();
    loop {
        let batch = RECLAIMER.lock().run_batch_for(urgency);
        if urgency == Urgency::Background {
            slice.rest_if_over();
        }
        let so_far = freed();
        if so_far >= wanted {
            return so_far;
        }
        rounds += u32::from(batch.ended_round);
        // So many rounds give every page its chance, and huge ones are split meanwhile; after that
        // there is nothing to be had.
        let is_vain = rounds > hands * (Selected::PASSES + PATIENT_ROUNDS);
        if is_vain && so_far == FrameCount::ZERO {
            // Nothing else is left, and commit charges count on every frame of the compressed pool,
            // not only on those beyond its bound.
            RECLAIMER.lock().write_out_tier(wanted);
        }
        let is_enough = so_far.0 + batch.leaving as u64 >= wanted.0;
        if (is_vain || is_enough || batch.is_disk_busy) && !wait_for_disk() {
            return freed();
        }
    }
}

/// Lets the disk take what is on its way out, and waits until something has arrived there; `false`
/// when nothing is on its way, or the caller can't wait.
fn wait_for_disk() -> bool {
    let (disk, ticket) = {
        let mut reclaimer = RECLAIMER.lock();
        reclaimer.settle();
        let Some(swap) = &mut reclaimer.swap_disk else { return false };
        swap.submit();
        let (disk, write) = (swap.disk, swap.a_write());
        if swap.is_writing() {
            (disk, write)
        } else {
            reclaimer.keep_staged();
            let before = reclaimer.dropped_ahead;
            let ticket = reclaimer.give_up_aheads(); // the last that there is to be had
            if ticket.is_none() {
                return reclaimer.dropped_ahead > before;
            }
            (disk, ticket)
        }
    };
    if cpu::is_masked() {
        return false;
    }
    match ticket {
        Some(ticket) => disk.wait(ticket),
        None => disk.wait_for_room(), // reads fill its queue
    }
    RECLAIMER.lock().settle();
    true
}

/// Frames that keep commit charges of pages that are read ahead.
#[cfg(test)]
pub(in crate::mm) fn committed_ahead() -> FrameCount {
    RECLAIMER.lock().aheads.iter().flatten().map(Ahead::committed).fold(FrameCount::ZERO, FrameCount::saturating_add)
}

/// Forgets everything: each test machine begins without swap.
#[cfg(test)]
pub(crate) fn restart() {
    let last = core::mem::replace(&mut *RECLAIMER.lock(), Reclaimer::new());
    core::mem::forget(last.aheads); // its frames went with their machine
}

/// What one batch came to.
#[derive(Clone, Copy, Debug, Default)]
struct BatchResult {
    ended_round: bool,
    /// The disk can take no more for now.
    is_disk_busy: bool,
    /// Frames on their way to the disk.
    leaving: usize,
}

impl Reclaimer {
    const fn new() -> Self {
        Self {
            anonymous: None,
            files: None,
            balance: Balance::new(),
            compressed_pool: CompressedPool::new(),
            swap_disk: None,
            page_reads: ReadAhead::new(),
            zspage_reads: ReadAhead::new(),
            aheads: [const { None }; MOST_AHEAD],
            dropped_ahead: 0,
            collapse: None,
            statistics: ReclaimStatistics {
                compressed_pool: CompressedPoolStatistics { pages: 0, frames: FrameCount::ZERO },
                disk: DiskStatistics { slots: 0, used_slots: 0, writes: 0, reads: 0, errors: 0 },
                pages_on_disk: 0,
                filled_pages: 0,
                file_pages: 0,
                evictions: 0,
                restores: 0,
                touched_restores: 0,
                refaults: 0,
                incompressible: 0,
                discards: 0,
                is_thrashing: false,
                thrash_episodes: 0,
                collapses: 0,
                efforts: Efforts::new(),
                ages: [0; AGES],
            },
            thrash: ThrashDetector::new(),
        }
    }

    fn run_batch_for(&mut self, urgency: Urgency) -> BatchResult {
        let result = self.run_batch();
        let scanned = self.all_hands().map(Hand::scanned).sum();
        let total = Effort { scanned, freed: self.made_free() };
        self.statistics.efforts.attribute(urgency, total);
        result
    }

    /// Visits pages from the hand on, within one slot, and evicts what the policy gives up.
    fn run_batch(&mut self) -> BatchResult {
        self.is_thrashing(); // the metrics are looked at while they change
        self.settle();
        self.shrink_compressed_pool();
        let kind = self.next_kind();
        // What is on a disk already needs neither a slot nor a frame of the compressed pool.
        let is_disk_busy = kind != Some(PageKind::File) && self.must_wait_for_disk();
        let result = if is_disk_busy { BatchResult::default() } else { self.turn_hand(kind) };
        BatchResult { is_disk_busy, leaving: self.swap_disk.as_ref().map_or(0, SwapDisk::leaving), ..result }
    }

    /// Whether the disk will have room for anonymous pages once it has written what is under way. A
    /// disk that is full is not waited for: pages that need no slot can be evicted all the same,
    /// and the others stay ([`Self::evict`]).
    fn must_wait_for_disk(&mut self) -> bool {
        let is_tier_full = self.tier_surplus() > COMPRESSED_POOL_SLACK;
        let Some(swap) = &mut self.swap_disk else { return false };
        if !is_tier_full && swap.make_room(1) {
            return false;
        }
        swap.submit();
        if swap.is_writing() {
            return true;
        }
        self.keep_staged();
        false
    }

    fn is_thrashing(&mut self) -> bool {
        let ReclaimStatistics { evictions, restores, touched_restores, refaults, .. } = self.statistics;
        let tally = Tally { evictions, restores, touched_restores, refaults };
        self.thrash.observe(Instant::now(), tally)
    }

    /// Frames that reclaim has made free since boot, less those that the compressed pool has taken
    /// for it.
    fn made_free(&self) -> u64 {
        let ReclaimStatistics { evictions, discards, .. } = self.statistics;
        (evictions + discards + self.dropped_ahead).saturating_sub(self.compressed_pool.statistics().frames.0)
    }

    /// Hands that go round.
    fn hands(&self) -> u32 {
        u32::from(self.anonymous.is_some()) + u32::from(self.files.is_some())
    }

    fn all_hands(&self) -> impl Iterator<Item = &Hand> {
        self.anonymous.iter().chain(&self.files)
    }

    fn ages(&self) -> [u64; AGES] {
        let add = |sum: [u64; AGES], hand: &Hand| array::from_fn(|class| sum[class] + hand.ages()[class]);
        self.all_hands().fold([0; AGES], add)
    }

    /// The hand over pages of this kind.
    fn hand(&mut self, kind: PageKind) -> Option<&mut Hand> {
        match kind {
            PageKind::Anonymous => self.anonymous.as_mut(),
            PageKind::File => self.files.as_mut(),
        }
    }

    /// The kind of page that goes next: the one that is regretted less, unless there was nothing to
    /// be had of it lately.
    fn next_kind(&self) -> Option<PageKind> {
        match (&self.anonymous, &self.files) {
            (None, None) => None,
            (Some(_), None) => Some(PageKind::Anonymous),
            (None, Some(_)) => Some(PageKind::File),
            (Some(anonymous), Some(files)) => Some(match anonymous.rounds_in_vain.cmp(&files.rounds_in_vain) {
                Ordering::Less => PageKind::Anonymous,
                Ordering::Equal => self.balance.preferred(),
                Ordering::Greater => PageKind::File,
            }),
        }
    }

    fn turn_hand(&mut self, kind: Option<PageKind>) -> BatchResult {
        let mut space = SPACE.lock();
        let Some((kind, hand)) = kind.and_then(|kind| Some((kind, self.hand(kind)?))) else {
            return BatchResult { ended_round: true, ..BatchResult::default() };
        };
        let Some((at, end)) = space.regions.next_slot(kind, hand.at) else {
            hand.end_round();
            return BatchResult { ended_round: true, ..BatchResult::default() };
        };
        let next = match space.tables().map_or(Slot::Empty, |tables| tables.slot(at)) {
            Slot::Empty => end,
            Slot::Huge => self.visit_huge(&mut space, at, end),
            Slot::Table => self.visit_pages(&mut space, kind, at, end),
        };
        if let Some(hand) = self.hand(kind) {
            hand.at = next;
        }
        BatchResult::default()
    }

    /// Splits a huge page that is cold, or that may be so in parts; the hand then goes over its
    /// pages.
    fn visit_huge(&mut self, space: &mut Space, at: u64, end: u64) -> u64 {
        let (Some(hand), Some(tables)) = (&mut self.anonymous, space.tables_mut()) else { return end };
        if tables.is_huge_discardable(at) {
            self.discard_huge(space, at, end);
            return end;
        }
        if !hand.visit_huge(tables, at) {
            return end;
        }
        if space.split_huge(at) { at } else { end } // again, page by page
    }

    /// Drops a huge page that nobody needs.
    fn discard_huge(&mut self, space: &mut Space, at: u64, end: u64) {
        let Some(tables) = space.tables_mut() else { return };
        tables.revoke(at, end);
        cpu::flush_tlb();
        tables.collect(at, end, &mut |collected| {
            if let Collected::Page(block) = collected {
                FRAMES.free_committed(block);
            }
        });
        space.regions.restore_commit_charge(at, FrameCount(HUGE_FRAMES));
        self.statistics.discards += HUGE_FRAMES;
    }

    fn visit_pages(&mut self, space: &mut Space, kind: PageKind, at: u64, end: u64) -> u64 {
        let (Some(hand), Some(tables)) = (self.hand(kind), space.tables_mut()) else { return end };
        let (victims, next) = hand.visit_pages(tables, at, end);
        for &victim in victims.pages() {
            match kind {
                PageKind::Anonymous => self.evict(space, victim),
                PageKind::File => self.replace(space, victim, Stored::InFile),
            }
        }
        next
    }

    /// Moves a page, whose translation is revoked and flushed, out of memory; or lets it stay.
    fn evict(&mut self, space: &mut Space, page: u64) {
        let Some(tables) = space.tables_mut() else { return };
        let Some(revoked) = tables.revoked_page(page) else { return };
        if revoked.is_discardable {
            if let Some(block) = tables.discard_revoked(page) {
                space.regions.restore_commit_charge(page, FrameCount(1));
                FRAMES.free_committed(block);
            }
            self.statistics.discards += 1;
            return;
        }
        let contents = page_at(revoked.frame);
        let stored = match filled_with(contents) {
            Some(pattern) => Ok(Stored::Filled(pattern)),
            None if revoked.is_incompressible => Err(StoreError::Incompressible),
            None => self
                .compressed_pool
                .store(
                    page,
                    contents,
                    || FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool),
                    free_of_compressed_pool,
                )
                .map(Stored::Compressed),
        };
        match stored {
            Ok(stored) => {
                self.note_eviction(PageKind::Anonymous);
                self.statistics.filled_pages += u64::from(matches!(stored, Stored::Filled(_)));
                self.replace(space, page, stored);
            }
            Err(error) => {
                if error == StoreError::Incompressible && !revoked.is_incompressible {
                    self.statistics.incompressible += 1;
                    tables.note_incompressible(page);
                }
                match self.swap_disk.as_mut().filter(|swap| swap.has_room(1)) {
                    Some(swap) => {
                        swap.stage(Leaver::Page(page), &[revoked.frame]);
                        self.note_eviction(PageKind::Anonymous);
                    }
                    None => tables.reinstate(page),
                }
            }
        }
    }

    fn note_eviction(&mut self, kind: PageKind) {
        self.balance.evicted(kind);
        if let Some(hand) = self.hand(kind) {
            hand.note_eviction();
        }
    }

    /// Notes where a revoked page's contents are now, and frees its frame.
    fn replace(&mut self, space: &mut Space, page: u64, stored: Stored) {
        let Some(tables) = space.tables_mut() else { return };
        let Some(revoked) = tables.revoked_page(page) else { return };
        self.statistics.evictions += 1;
        let entry = SwapEntry { stored, age: revoked.age, count: self.eviction_count() };
        let Some(block) = tables.replace_revoked(page, entry) else { return };
        if stored == Stored::InFile {
            self.note_eviction(PageKind::File);
            self.statistics.file_pages -= 1;
            FRAMES.free_in_headroom(block);
        } else {
            space.regions.restore_commit_charge(page, FrameCount(1));
            FRAMES.free_committed(block);
        }
    }

    /// Frames of the compressed pool beyond its bound; none where there is no disk to put them.
    fn tier_surplus(&self) -> FrameCount {
        let frames = self.compressed_pool.statistics().frames;
        if self.swap_disk.is_some() {
            frames.saturating_sub(FRAMES.sizing().compressed_pool_bound)
        } else {
            FrameCount::ZERO
        }
    }

    /// Groups of the compressed pool beyond its bound are on their way to disk, or will be.
    fn shrink_compressed_pool(&mut self) {
        let leaving = self.swap_disk.as_ref().map_or(0, SwapDisk::leaving) as u64;
        self.write_out_tier(self.tier_surplus().saturating_sub(FrameCount(leaving)));
    }

    /// Has the oldest groups of the compressed pool written to disk, `wanted` frames or a batch,
    /// whichever is less.
    fn write_out_tier(&mut self, wanted: FrameCount) {
        let Some(swap) = &mut self.swap_disk else { return };
        let mut rest = wanted.0.min(BATCH as u64);
        while rest > 0 && swap.make_room(MOST_FRAMES) {
            let Some(group) = self.compressed_pool.begin_leaving() else { return };
            swap.stage(Leaver::Zspage, group.frames());
            rest = rest.saturating_sub(group.frames().len() as u64);
        }
    }

    /// Carries out what the disk has finished.
    fn settle(&mut self) {
        self.settle_aheads();
        if !self.swap_disk.as_ref().is_some_and(SwapDisk::is_writing) {
            return;
        }
        let mut space = SPACE.lock();
        while let Some(finished) = self.swap_disk.as_mut().and_then(SwapDisk::next_finished) {
            self.finish(&mut space, &finished);
        }
    }

    /// What is staged stays: the disk has no slot for it.
    fn keep_staged(&mut self) {
        let mut space = SPACE.lock();
        while let Some(finished) = self.swap_disk.as_mut().and_then(SwapDisk::unstage) {
            self.finish(&mut space, &finished);
        }
    }

    /// A page or group is on disk, or, with no slot, it could not be written.
    fn finish(&mut self, space: &mut Space, finished: &Finished) {
        match (finished.leaver, finished.slot) {
            (Leaver::Nobody | Leaver::RestOfZspage, _) => {}
            (Leaver::Page(page), None) => {
                if let Some(tables) = space.tables_mut() {
                    tables.reinstate(page);
                }
            }
            (Leaver::Page(page), Some(slot)) => {
                if let Some(swap) = &mut self.swap_disk {
                    swap.slots.keep(slot, Kept::Page);
                }
                self.statistics.pages_on_disk += 1;
                self.replace(space, page, Stored::OnDisk(slot));
            }
            (Leaver::Zspage, None) => self.compressed_pool.stay(finished.frame, free_of_compressed_pool),
            (Leaver::Zspage, Some(slot)) => self.zspage_left(space, finished.frame, slot),
        }
    }

    /// A group of the compressed pool is on disk: its pages are found there from now on.
    fn zspage_left(&mut self, space: &mut Space, group: FrameNumber, slot: SlotNumber) {
        let (pages, slots) = self.compressed_pool.used(group);
        match (&mut self.swap_disk, space.tables_mut()) {
            (Some(swap), Some(tables)) if pages != 0 => {
                swap.slots.keep(slot, Kept::Zspage { pages, slots });
                for (place, page) in self.compressed_pool.pages(group) {
                    let index = u8::try_from(place.index()).unwrap_or(u8::MAX);
                    tables.move_swapped(page, Stored::Compressed(place), Stored::CompressedOnDisk(slot, index));
                }
            }
            (Some(swap), _) => (0..slots).for_each(|place| swap.slots.free_slot(slot.plus(place))),
            (None, _) => {}
        }
        self.statistics.pages_on_disk += u64::from(pages.count_ones());
        self.compressed_pool.left(group, free_of_compressed_pool);
    }

    fn eviction_count(&self) -> u32 {
        u32::try_from(self.statistics.evictions & ((1 << 20) - 1)).unwrap_or(0)
    }

    /// Pages of `pages` that are on their way to the disk or from it are not to be touched when
    /// they arrive: their region is gone.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        self.cancel_aheads(pages);
        if let Some(swap) = &mut self.swap_disk {
            swap.cancel(pages);
        }
    }

    /// Forgets where an evicted page was.
    pub(crate) fn forget(&mut self, entry: SwapEntry) {
        match (entry.stored, &mut self.swap_disk) {
            (Stored::Filled(_), _) => self.statistics.filled_pages -= 1,
            (Stored::InFile, _) => {}
            (Stored::Compressed(place), _) => self.compressed_pool.drop_page(place, free_of_compressed_pool),
            (Stored::OnDisk(slot), Some(swap)) => {
                self.statistics.pages_on_disk -= 1;
                swap.slots.drop_page(slot);
            }
            (Stored::CompressedOnDisk(slot, index), Some(swap)) => {
                self.statistics.pages_on_disk -= 1;
                swap.slots.drop_page_of_zspage(slot, usize::from(index));
            }
            (Stored::OnDisk(_) | Stored::CompressedOnDisk(..), None) => {}
        }
    }
}

fn free_of_compressed_pool(block: Block) {
    FRAMES.free_in_headroom(block);
}

/// The word that the page consists of, if it is one over and over.
fn filled_with(page: &[u8; FRAME_SIZE]) -> Option<u32> {
    let words = page.as_chunks::<4>().0;
    let first = words[0];
    words.iter().all(|word| *word == first).then_some(u32::from_le_bytes(first))
}

fn page_at(frame: FrameNumber) -> &'static [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance::<[u8; FRAME_SIZE]>(to_usize(frame.address()));
    // SAFETY: the frame's translation is revoked and flushed, so nobody writes to it while the
    // locks are held; the identity map reaches it.
    unsafe { &*pointer }
}

pub(super) fn page_in(block: &mut Block) -> &mut [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance_mut::<[u8; FRAME_SIZE]>(to_usize(block.first().address()));
    // SAFETY: the block is owned by the caller and mapped nowhere else; the identity map reaches
    // it.
    unsafe { &mut *pointer }
}

#[cfg(test)]
pub(in crate::mm) mod tests;
