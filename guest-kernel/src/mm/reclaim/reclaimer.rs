//! The reclaimer: moves pages that the scanner chooses to swap space, and drops those of files.
#![allow(unsafe_code, reason = "reads the contents of frames")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use aerostat_reclaim_policy::Age;

use super::first_visits::FirstVisits;
use super::scan::Scanner;
use super::scan::balance::PageKind;
use super::scan::efforts::Urgency;
use super::scan::hand::BatchSize;
use super::swap::compressed_pool::StoreError;
use super::swap::entry::{Stored, SwapEntry};
use super::swap::swap_disk::{Finished, Outgoing, SwapDisk};
use super::swap::{Room, SwapSpace};
use super::swap_in::{ReadsUnderWay, SwapIn};
use crate::arch::x86_64::cpu;
use crate::mm::page_table::{Collected, Slot};
use crate::mm::{FRAMES, SPACE, Space};
use crate::sync::{LockRank, SpinLock};
use crate::time::Instant;

/// The reclaimer of the guest.
pub(crate) static RECLAIMER: SpinLock<Reclaimer> = SpinLock::new(LockRank::Reclaimer, Reclaimer::new());

/// What is chosen, where it is stored, and how it comes back.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    pub(super) scanner: Scanner,
    pub(super) swap: SwapSpace,
    pub(super) swap_in: SwapIn,
    /// Reads that a thread waits for.
    pub(super) reads: ReadsUnderWay,
    pub(super) first_visits: FirstVisits,
    /// Pages of files in memory.
    file_pages: u64,
    /// Pages dropped since boot because the application did not need their contents.
    discards: u64,
}

/// The result of one batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchResult {
    /// The hand has passed the last page of its kind.
    pub(super) has_ended_scan: bool,
    /// Nothing was scanned: the disk has to finish a write first.
    pub(super) is_disk_busy: bool,
    /// A page stays because the disk has no free slot for it.
    pub(super) lacks_slot: bool,
    /// Frames on their way to the disk.
    pub(super) leaving: usize,
}

impl Reclaimer {
    pub(super) const fn new() -> Self {
        Self {
            scanner: Scanner::new(),
            swap: SwapSpace::new(),
            swap_in: SwapIn::new(),
            reads: ReadsUnderWay::NONE,
            first_visits: FirstVisits::new(),
            file_pages: 0,
            discards: 0,
        }
    }

    /// Returns how many pages of files are in memory.
    pub(super) fn file_pages(&self) -> u64 {
        self.file_pages
    }

    /// Returns the age with which a page of a file arrives in memory.
    pub(crate) fn file_page_arrives(&mut self, entry: Option<SwapEntry>, is_touched: bool) -> Age {
        if entry.is_some() {
            self.scanner.count_restore(is_touched);
        }
        self.scanner.arrive(PageKind::File, entry, is_touched)
    }

    /// Notes that a read of `pages` of a file has taken that long, and that `mapped` of them were
    /// mapped. Returns whether pages are due for their first visit, and none was before.
    pub(crate) fn note_file_read(&mut self, pages: &Range<u64>, mapped: u64, nanoseconds: u64) -> bool {
        self.file_pages += mapped;
        self.scanner.note_restore_time(PageKind::File, mapped, nanoseconds);
        self.first_visits.note(pages)
    }

    /// Returns how many pages were dropped because their contents were not needed.
    pub(super) fn discards(&self) -> u64 {
        self.discards
    }

    /// Returns how many pages were evicted or dropped since boot.
    pub(super) fn evicted(&self) -> u64 {
        self.scanner.tally().evictions + self.discards + self.swap_in.dropped_frames()
    }

    /// Returns how many frames reclaim has made free since boot, less those that the compressed
    /// pool uses.
    pub(super) fn made_free(&self) -> u64 {
        self.evicted().saturating_sub(self.swap.pool.statistics().frames.0)
    }

    /// Visits pages from the hand on, within one slot, and evicts those that the policy gives up:
    /// about `wanted` of files at most, and fewer of the others.
    pub(super) fn run_batch(&mut self, urgency: Urgency, wanted: FrameCount) -> BatchResult {
        self.scanner.is_thrashing(Instant::now()); // sampled while the metrics change
        self.finish_transfers();
        self.swap.shrink_pool();
        let kind = self.scanner.next_kind();
        // Pages of files need neither a slot nor a frame of the compressed pool.
        let is_disk_busy = kind != Some(PageKind::File) && !self.make_room();
        let has_ended_scan = !is_disk_busy && self.scan(kind, wanted);
        self.scanner.attribute(urgency, self.made_free());
        let lacks_slot = self.swap.take_lacked_slot();
        BatchResult { has_ended_scan, is_disk_busy, lacks_slot, leaving: self.swap.leaving() }
    }

    /// Returns whether anonymous pages may be scanned. A full disk is not waited for: pages that
    /// need no slot can be evicted all the same, and the others stay.
    fn make_room(&mut self) -> bool {
        match self.swap.make_room() {
            Room::Free => true,
            Room::Busy => false,
            Room::Full => {
                self.unstage();
                true
            }
        }
    }

    /// Moves the hand over pages of a kind on. Returns whether that ended a scan.
    fn scan(&mut self, kind: Option<PageKind>, wanted: FrameCount) -> bool {
        let mut space = SPACE.lock();
        let Some((kind, hand)) = kind.and_then(|kind| Some((kind, self.scanner.hand(kind)?))) else { return true };
        let Some((at, end)) = space.regions.next_slot(kind, hand.at) else {
            hand.end_scan();
            return true;
        };
        let next = match space.tables().map_or(Slot::Empty, |tables| tables.slot(at)) {
            Slot::Empty => end,
            Slot::Huge => self.visit_huge(&mut space, at, end),
            Slot::Table => match kind {
                PageKind::Anonymous => self.evict_pages(&mut space, at..end),
                PageKind::File => self.drop_pages(&mut space, at..end, wanted),
            },
        };
        if let Some(hand) = self.scanner.hand(kind) {
            hand.at = next;
        }
        false
    }

    /// Splits a huge page that is cold or that may be so in parts. The hand then goes over its
    /// pages. Returns where the hand goes on.
    fn visit_huge(&mut self, space: &mut Space, at: u64, end: u64) -> u64 {
        let (Some(hand), Some(tables)) = (self.scanner.hand(PageKind::Anonymous), space.tables_mut()) else {
            return end;
        };
        if tables.is_huge_discardable(at) {
            self.discard_huge(space, at, end);
            return end;
        }
        if hand.visit_huge(tables, at) && space.split_huge(at) { at } else { end }
    }

    /// Drops a huge page whose contents are not needed.
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
        self.discards += HUGE_FRAMES;
    }

    /// Evicts those of some anonymous pages of a slot that the policy gives up. Returns where the
    /// hand goes on.
    fn evict_pages(&mut self, space: &mut Space, pages: Range<u64>) -> u64 {
        let (Some(hand), Some(tables)) = (self.scanner.hand(PageKind::Anonymous), space.tables_mut()) else {
            return pages.end;
        };
        let (victims, next) = hand.visit_pages(tables, pages, BatchSize::ANONYMOUS);
        victims.pages().for_each(|victim| self.evict(space, victim));
        next
    }

    /// Does the same with pages of files, of which about `wanted` are dropped at most.
    fn drop_pages(&mut self, space: &mut Space, pages: Range<u64>, wanted: FrameCount) -> u64 {
        let (Some(hand), Some(tables)) = (self.scanner.hand(PageKind::File), space.tables_mut()) else {
            return pages.end;
        };
        let (victims, next) = hand.visit_pages(tables, pages, BatchSize::of_files(to_usize(wanted.0)));
        let Self { scanner, file_pages, .. } = self;
        FRAMES.free_all_in_headroom(victims.pages().filter_map(|page| {
            scanner.note_victim(PageKind::File);
            let entry = |age| SwapEntry { stored: Stored::InFile, age, count: scanner.count_eviction() };
            let block = tables.replace_revoked(page, entry)?;
            *file_pages -= 1;
            Some(block)
        }));
        next
    }

    /// Evicts an anonymous page whose translation is revoked and flushed, or reinstates it.
    fn evict(&mut self, space: &mut Space, page: u64) {
        let Some(tables) = space.tables_mut() else { return };
        let Some(revoked) = tables.revoked_page(page) else { return };
        if revoked.is_discardable {
            return self.discard(space, page);
        }
        let stored = if revoked.is_incompressible {
            Err(StoreError::Incompressible)
        } else {
            // SAFETY: the translation is revoked and flushed, and the locks are held, so nothing
            // writes to the frame.
            let contents = unsafe { contents_of(revoked.frame) };
            self.swap.store(page, contents)
        };
        match stored {
            Ok(stored) => {
                self.scanner.note_victim(PageKind::Anonymous);
                self.replace(space, page, stored);
            }
            Err(error) => {
                if error == StoreError::Incompressible {
                    tables.note_incompressible(page);
                }
                if self.swap.stage_page(page, revoked.frame) {
                    self.scanner.note_victim(PageKind::Anonymous);
                } else {
                    tables.reinstate(page);
                }
            }
        }
    }

    /// Drops a revoked page whose contents are not needed.
    fn discard(&mut self, space: &mut Space, page: u64) {
        if let Some(block) = space.tables_mut().and_then(|tables| tables.discard_revoked(page)) {
            space.regions.restore_commit_charge(page, FrameCount(1));
            FRAMES.free_committed(block);
        }
        self.discards += 1;
    }

    /// Records where the contents of a revoked anonymous page are now, and frees its frame.
    fn replace(&mut self, space: &mut Space, page: u64, stored: Stored) {
        let Some(tables) = space.tables_mut() else { return };
        let entry = |age| SwapEntry { stored, age, count: self.scanner.count_eviction() };
        let Some(block) = tables.replace_revoked(page, entry) else { return };
        space.regions.restore_commit_charge(page, FrameCount(1));
        FRAMES.free_committed(block);
    }

    /// Carries out what follows from the transfers that the disk has finished.
    pub(super) fn finish_transfers(&mut self) {
        self.swap_in.finish_reads();
        if !self.swap.disk.as_ref().is_some_and(SwapDisk::is_writing) {
            return;
        }
        let mut space = SPACE.lock();
        while let Some(finished) = self.swap.disk.as_mut().and_then(SwapDisk::next_finished) {
            self.finish_write(&mut space, finished);
        }
    }

    /// Keeps everything that is staged in memory: the disk has no slots for it.
    pub(super) fn unstage(&mut self) {
        let mut space = SPACE.lock();
        while let Some(finished) = self.swap.disk.as_mut().and_then(SwapDisk::unstage) {
            self.finish_write(&mut space, finished);
        }
    }

    /// Frees the frames of a page or zspage that has been written, or keeps it if it could not be.
    fn finish_write(&mut self, space: &mut Space, finished: Finished) {
        match (finished.outgoing, finished.slot) {
            (Outgoing::Cancelled | Outgoing::RestOfZspage, _) => {}
            (Outgoing::Page(page), Some(slot)) => {
                let stored = self.swap.end_page_write(slot);
                self.replace(space, page, stored);
            }
            (Outgoing::Page(page), None) => {
                if let Some(tables) = space.tables_mut() {
                    tables.reinstate(page);
                }
            }
            (Outgoing::Zspage(writeback), Some(slot)) => {
                let Some(tables) = space.tables_mut() else { return };
                self.swap.end_writeback(tables, writeback, slot);
            }
            (Outgoing::Zspage(writeback), None) => self.swap.pool.cancel_writeback(writeback),
        }
    }

    /// Cancels the transfers of the pages in `pages`: nothing is done with them when they end.
    pub(crate) fn cancel(&mut self, pages: &Range<u64>) {
        self.swap_in.cancel(pages);
        self.swap.cancel(pages);
    }

    /// Drops the contents of an evicted page.
    ///
    /// # Safety
    /// The caller has removed the swap entry from a page table.
    pub(crate) unsafe fn forget(&mut self, entry: SwapEntry) {
        // SAFETY: the caller's duty.
        unsafe { self.swap.drop_page(entry) };
    }
}

/// Returns the contents of a frame.
///
/// # Safety
/// Nothing writes to the frame during `'a`.
unsafe fn contents_of<'a>(frame: FrameNumber) -> &'a [u8; FRAME_SIZE] {
    let pointer = core::ptr::with_exposed_provenance::<[u8; FRAME_SIZE]>(to_usize(frame.address()));
    // SAFETY: the identity map reaches the frame, and the caller rules out writes.
    unsafe { &*pointer }
}
