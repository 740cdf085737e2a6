//! A thread that makes random use of memory, and keeps the expected contents of every page.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant};

use crate::contents::PAGE_BYTES;
use crate::random::Random;
use crate::region::Region;

/// The most pages of a mapping: 8 MiB, so that some mappings have huge pages and some have none.
const MAX_PAGES: usize = 2048;
/// The most pages of a region in the heap.
const MAX_HEAP_PAGES: usize = 16;
/// The most pages that are used in a row.
const RUN: usize = 96;
/// The most pages whose eviction the application asks for at once.
const EVICTED: usize = 256;

/// The counts of all threads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    verified_bytes: AtomicU64,
    errors: AtomicU64,
    refusals: AtomicU64,
}

impl Tally {
    /// Returns the number of bytes that were read back and were right.
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.verified_bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of words that were wrong.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Returns the number of allocations that failed.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

/// The memory of a thread.
#[derive(Debug)]
pub(crate) struct Worker {
    random: Random,
    regions: Vec<Region>,
    pages: usize,
    /// The most pages that it may have.
    share: usize,
    tally: Arc<Tally>,
}

impl Worker {
    /// Makes a worker that uses up to `share` bytes.
    pub(crate) fn new(seed: u64, share: u64, tally: Arc<Tally>) -> Self {
        let share = usize::try_from(FrameCount::from_bytes_floor(share).0).unwrap_or(usize::MAX);
        Self { random: Random::new(seed), regions: Vec::new(), pages: 0, share, tally }
    }

    /// Works until `end`, then verifies and releases all regions.
    pub(crate) fn run(&mut self, end: Instant) {
        while Instant::now() < end {
            match self.random.below(100) {
                0..10 => self.make(MAX_PAGES, Region::mapped),
                10..20 => self.make(MAX_HEAP_PAGES, Region::in_heap),
                20..28 => self.release(),
                28..56 => self.change(Region::rewrite),
                56..64 => self.change(|region, run, _| region.discard(run)),
                64..68 => self.change(|region, run, _| region.prefetch(&run)),
                68..72 => self.change(|region, _, _| region.protect()),
                72..96 => self.change(|_, _, _| ()),
                96..98 => drop(app::reclaim(FrameCount(self.random.below(EVICTED) as u64))),
                _ => app::yield_now(),
            }
        }
        while !self.regions.is_empty() {
            self.release();
        }
    }

    /// Makes a region or, if the share is used up or memory is refused, releases one.
    fn make(&mut self, most: usize, new: fn(usize) -> Option<Region>) {
        let pages = 1 + self.random.below(most);
        if self.pages + pages > self.share {
            return self.release();
        }
        let made = if self.regions.try_reserve(1).is_ok() { new(pages) } else { None };
        let Some(mut region) = made else {
            self.tally.refusals.fetch_add(1, Ordering::Relaxed);
            return self.release();
        };
        // Some pages stay untouched and must read as zero.
        for _ in 0..4 {
            let run = region.random_run(pages, &mut self.random);
            region.rewrite(run, &mut self.random);
        }
        self.pages += pages;
        self.regions.push(region);
    }

    fn release(&mut self) {
        let Some(number) = self.any_region() else { return };
        let region = self.regions.swap_remove(number);
        self.pages -= region.pages();
        // Half of the regions are released unread, so that pages are released in every state.
        if self.random.below(2) == 0 {
            self.check(&region, 0..region.pages());
        }
    }

    /// Verifies a run of pages and changes it.
    fn change(&mut self, change: fn(&mut Region, Range<usize>, &mut Random)) {
        let Some(number) = self.any_region() else { return };
        let run = self.regions[number].random_run(RUN, &mut self.random);
        self.check(&self.regions[number], run.clone());
        change(&mut self.regions[number], run, &mut self.random);
    }

    fn any_region(&mut self) -> Option<usize> {
        if self.regions.is_empty() { None } else { Some(self.random.below(self.regions.len())) }
    }

    fn check(&self, region: &Region, run: Range<usize>) {
        let bytes = (run.len() * PAGE_BYTES) as u64;
        let wrong = region.wrong_words(run);
        self.tally.errors.fetch_add(wrong, Ordering::Relaxed);
        self.tally.verified_bytes.fetch_add(bytes - wrong * 8, Ordering::Relaxed);
    }
}
