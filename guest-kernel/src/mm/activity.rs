//! How much of the application's memory is in use, by samples.
//!
//! At the beginning of a period the sampler chooses pages at equal distances from a random one on,
//! and marks them: it clears a page's accessed bit. At the end it counts those that were accessed.
//! The part of them is the part of memory that is in use (C. Waldspurger, OSDI 2002, section 5.3).
//! So the host learns what is idle although nothing is evicted. Reclaim loses no information: a bit
//! that is cleared here is remembered for its next visit, and a visit in the middle of a period
//! remembers for the sampler what it clears ([`PageTables::begin_sample`]).
//!
//! The cost of a period is one TLB flush and, for each sample in use, one access that sets the bit
//! again. While nothing is in use, periods become longer.
//!
//! [`PageTables::begin_sample`]: super::page_table::PageTables::begin_sample

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::{FRAME_BYTES, HUGE_BYTES, HUGE_FRAMES};

use super::SPACE;
use super::page_table::{PageTables, Slot};
use super::reclaim::scan::balance::PageKind;
use crate::arch::x86_64::cpu;
use crate::config::{ACTIVITY_PERIOD_NS, LONGEST_ACTIVITY_PERIOD_NS};

mod estimate;

use estimate::{Density, Estimate, Found};

/// Most samples of a period.
const MOST: usize = 192;
/// Samples that are handled under one lock of the address space.
const CHUNK: usize = 16;

/// The latest estimate, encoded.
static LATEST: AtomicU64 = AtomicU64::new(Estimate::NONE.encode());

/// Returns the pages of the application in memory by age: those in use are of the youngest class,
/// the others, and the `file_pages`, of the oldest. Returns `None` before the first period has
/// ended.
pub(super) fn ages(file_pages: u64) -> Option<[u64; AGES]> {
    let Estimate { active, idle } = Estimate::decode(LATEST.load(Ordering::Relaxed));
    (active + idle > 0).then_some([active, 0, 0, idle + file_pages])
}

/// A page that is sampled.
#[derive(Clone, Copy, Debug)]
struct Sample {
    page: u64,
    /// The number of pages that it stands for.
    pages: u64,
}

/// The sampler. The background thread has the one that there is.
#[derive(Debug)]
pub(crate) struct Sampler {
    samples: [Sample; MOST],
    count: usize,
    density: Density,
    /// The state of the random numbers.
    seed: u64,
    period_ns: u64,
}

impl Sampler {
    pub(crate) const fn new() -> Self {
        let none = Sample { page: 0, pages: 0 };
        Self { samples: [none; MOST], count: 0, density: Density::FULL, seed: 1, period_ns: ACTIVITY_PERIOD_NS }
    }

    /// Ends a period and begins the next. Returns how long that is to be. Calls `between` now and
    /// then, with no lock held.
    pub(crate) fn next_period(&mut self, mut between: impl FnMut()) -> u64 {
        let found = self.end(&mut between);
        let before = Estimate::decode(LATEST.load(Ordering::Relaxed));
        LATEST.store(before.next(found).encode(), Ordering::Relaxed);
        self.density = self.density.next(self.count, MOST);
        self.begin(&mut between);
        let is_quiet = found.touched == 0;
        self.period_ns =
            if is_quiet { (2 * self.period_ns).min(LONGEST_ACTIVITY_PERIOD_NS) } else { ACTIVITY_PERIOD_NS };
        self.period_ns
    }

    /// Counts the samples that were touched. Those that are in memory no more are left out.
    fn end(&self, between: &mut impl FnMut()) -> Found {
        let mut found = Found::default();
        for chunk in self.samples[..self.count].chunks(CHUNK) {
            let space = SPACE.lock();
            let Some(tables) = space.tables() else { break };
            for &Sample { page, pages } in chunk {
                found.count(tables.was_touched(page), pages);
            }
            drop(space);
            between();
        }
        found
    }

    /// Chooses samples, and marks them.
    fn begin(&mut self, between: &mut impl FnMut()) {
        self.count = 0;
        let skipped = self.random() % self.density.stride * HUGE_BYTES;
        let mut next = SPACE.lock().regions.next_slot(PageKind::Anonymous, 0).map(|(first, _)| first + skipped);
        let mut is_stale = false;
        while let Some(at) = next {
            is_stale |= self.choose(at, &mut next);
            between();
        }
        if is_stale {
            cpu::flush_tlb();
        }
    }

    /// Chooses samples in some slots from `at` on, and sets where to go on. Returns whether the TLB
    /// must be flushed.
    fn choose(&mut self, mut at: u64, next: &mut Option<u64>) -> bool {
        let mut is_stale = false;
        let mut space = SPACE.lock();
        for _ in 0..CHUNK {
            let slot = space.regions.next_slot(PageKind::Anonymous, at);
            let (Some((start, end)), Some(tables)) = (slot, space.tables_mut()) else {
                *next = None;
                return is_stale;
            };
            is_stale |= match tables.slot(start) {
                Slot::Empty => false,
                Slot::Huge => self.mark(tables, Sample { page: start, pages: HUGE_FRAMES * self.density.stride }),
                Slot::Table => self.choose_pages(tables, start, end),
            };
            at = start - start % HUGE_BYTES + self.density.stride * HUGE_BYTES;
        }
        *next = Some(at);
        is_stale
    }

    /// Chooses pages of a table, at equal distances from a random one on.
    fn choose_pages(&mut self, tables: &mut PageTables, start: u64, end: u64) -> bool {
        let Density { stride, of_table } = self.density;
        let distance = HUGE_FRAMES / of_table;
        let first = start - start % HUGE_BYTES + self.random() % distance * FRAME_BYTES;
        let mut is_stale = false;
        for page in (0..of_table).map(|index| first + index * distance * FRAME_BYTES) {
            if (start..end).contains(&page) && tables.is_mapped(page) {
                is_stale |= self.mark(tables, Sample { page, pages: distance * stride });
            }
        }
        is_stale
    }

    /// Marks a sample, if there is room for another.
    fn mark(&mut self, tables: &mut PageTables, sample: Sample) -> bool {
        let Some(place) = self.samples.get_mut(self.count) else { return false };
        *place = sample;
        self.count += 1;
        tables.begin_sample(sample.page)
    }

    /// Returns a random number (Marsaglia's xorshift).
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

#[cfg(test)]
mod tests;
