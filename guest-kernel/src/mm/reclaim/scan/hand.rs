//! A hand: visits the pages of one kind of region, in the order of their addresses, and asks a
//! policy about each.

use core::ops::Range;

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, HUGE_BYTES, HUGE_FRAMES, to_usize};
use aerostat_reclaim_policy::{Age, Arrival, Name, Pass, Policy, Seen, Selected, Verdict};

use crate::arch::x86_64::cpu;
use crate::mm::page_table::PageTables;

/// Most evictions in one batch of anonymous pages, and so behind one TLB flush: most of them are
/// compressed, under locks.
pub(crate) const BATCH: usize = 32;
/// The same of pages of files, which are only dropped: all pages of a slot.
pub(crate) const FILE_BATCH: usize = to_usize(HUGE_FRAMES);
/// Most pages that one batch visits.
const VISITS: usize = 256;
/// Scans without an eviction after which huge pages that are in use are split: parts of them may be
/// cold.
const PATIENT_SCANS: u32 = 2;
/// Scans in which every page has been offered for eviction, those of huge pages included.
pub(crate) const VAIN_SCANS: u32 = Selected::PASSES + PATIENT_SCANS;

/// The place that a scan has reached, and what it has found.
#[derive(Debug)]
pub(crate) struct Hand {
    /// The address of the page to visit next.
    pub(crate) at: u64,
    policy: Selected,
    /// Scans without an eviction since the last one with any.
    vain_scans: u32,
    /// What the scan under way has found.
    scan: Pass,
    /// Pages in memory that the last complete scan found.
    resident: u64,
    /// Pages that stayed, by age: in the scan under way, and in the last complete one.
    ages_so_far: Ages,
    ages_of_last_scan: Ages,
    /// Pages visited since the hand was made.
    scanned: u64,
}

/// Pages by age, in steps of the policy since their last known use: none, one, two or three, more.
pub(super) type Ages = [u64; AGES];

/// How much a batch may do, within one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchSize {
    /// Most pages that it evicts.
    evictions: usize,
    /// Most pages that it visits.
    visits: usize,
}

impl BatchSize {
    /// The size of a batch of anonymous pages.
    pub(crate) const ANONYMOUS: Self = Self { evictions: BATCH, visits: VISITS };

    /// Returns the size of a batch of pages of files of which so many are to be dropped.
    pub(crate) fn of_files(wanted: usize) -> Self {
        let evictions = wanted.clamp(BATCH, FILE_BATCH);
        Self { evictions, visits: evictions.max(VISITS) }
    }
}

/// Pages of one slot whose translation the hand has revoked: to be evicted or reinstated.
#[derive(Debug)]
pub(crate) struct Victims {
    slot: u64,
    /// A bit for each page of the slot.
    pages: [u64; FILE_BATCH / 64],
    count: usize,
}

impl Victims {
    /// Returns no pages of the slot that `address` lies in.
    fn none(address: u64) -> Self {
        Self { slot: address - address % HUGE_BYTES, pages: [0; FILE_BATCH / 64], count: 0 }
    }

    fn add(&mut self, page: u64) {
        let place = to_usize((page - self.slot) / FRAME_BYTES);
        self.pages[place / 64] |= 1 << (place % 64);
        self.count += 1;
    }

    /// Returns the addresses of the pages, ascending.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        let is_set = |place: &usize| self.pages[place / 64] >> (place % 64) & 1 == 1;
        (0..FILE_BATCH).filter(is_set).map(|place| self.slot + place as u64 * FRAME_BYTES)
    }
}

impl Hand {
    pub(super) fn new(policy: Name) -> Self {
        Self {
            at: 0,
            policy: policy.policy(),
            vain_scans: 0,
            scan: Pass { visited: 0, evicted: 0 },
            resident: 0,
            ages_so_far: [0; AGES],
            ages_of_last_scan: [0; AGES],
            scanned: 0,
        }
    }

    /// Ends the scan: the hand has passed the last page, and begins again at the first.
    pub(crate) fn end_scan(&mut self) {
        self.at = 0;
        self.vain_scans = if self.scan.evicted > 0 { 0 } else { self.vain_scans + 1 };
        self.resident = self.scan.visited;
        self.ages_of_last_scan = core::mem::take(&mut self.ages_so_far);
        let scan = core::mem::replace(&mut self.scan, Pass { visited: 0, evicted: 0 });
        self.policy.pass_ended(scan);
    }

    /// Notes that a page that the hand has visited can be evicted.
    pub(super) fn note_victim(&mut self) {
        self.scan.evicted += 1;
    }

    /// Returns the age of a page that arrives in memory.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Age {
        self.policy.arrived(arrival)
    }

    /// Returns how many scans in a row found nothing to evict.
    pub(super) fn vain_scans(&self) -> u32 {
        self.vain_scans
    }

    /// Returns about how many pages are in memory, at least one.
    pub(super) fn resident_pages(&self) -> u64 {
        self.resident.max(self.scan.visited).max(1)
    }

    /// Returns how many pages are in memory, by age, as the last complete scan found them.
    pub(super) fn ages(&self) -> Ages {
        self.ages_of_last_scan
    }

    /// Returns how many pages the hand has visited.
    pub(super) fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Ages the huge page at `at`. Returns whether it is to be split: it is cold, or scans found
    /// nothing else.
    pub(crate) fn visit_huge(&mut self, tables: &mut PageTables, at: u64) -> bool {
        let mut kept = None;
        let was_accessed =
            tables.visit_huge(at, &mut |age, accessed| match self.policy.visited(Seen { age, accessed }) {
                Verdict::Keep(age) => *kept.insert(age),
                Verdict::Evict => age,
            });
        self.scan.visited += HUGE_FRAMES;
        self.scanned += HUGE_FRAMES;
        if was_accessed {
            cpu::flush_tlb();
        }
        match kept {
            Some(age) if self.vain_scans < PATIENT_SCANS => {
                self.ages_so_far[class(&self.policy, age)] += HUGE_FRAMES;
                false
            }
            _ => true,
        }
    }

    /// Ages `pages`, which lie in one slot, and revokes those that the policy gives up, as far as
    /// `size` allows. Returns these, and the address that the visit has reached.
    pub(crate) fn visit_pages(
        &mut self,
        tables: &mut PageTables,
        pages: Range<u64>,
        size: BatchSize,
    ) -> (Victims, u64) {
        let end = pages.end.min(pages.start + size.visits as u64 * FRAME_BYTES);
        let mut victims = Victims::none(pages.start);
        let mut is_stale = false;
        let mut page = pages.start;
        while page < end && victims.count < size.evictions {
            let Self { policy, ages_so_far: ages, .. } = self;
            let visited = tables.visit_page(page, &mut |age, accessed| {
                let verdict = policy.visited(Seen { age, accessed });
                if let Verdict::Keep(age) = verdict {
                    ages[class(policy, age)] += 1;
                }
                verdict
            });
            is_stale |= visited.is_stale;
            self.scan.visited += u64::from(visited.is_mapped);
            self.scanned += u64::from(visited.is_mapped);
            if visited.is_revoked {
                victims.add(page);
            }
            page += FRAME_BYTES;
        }
        if is_stale {
            cpu::flush_tlb();
        }
        (victims, page)
    }

    /// Visits those of `pages`, which lie in one slot, of which a visit tells nothing but that they
    /// are there.
    pub(crate) fn visit_new_pages(&mut self, tables: &mut PageTables, pages: Range<u64>) {
        let mut is_stale = false;
        let policy = &mut self.policy;
        for page in pages.step_by(FRAME_SIZE) {
            is_stale |= tables.age_page(page, &mut |age, accessed| {
                let seen = Seen { age, accessed };
                let verdict = policy.is_new(seen).then(|| policy.visited(seen))?;
                if let Verdict::Keep(age) = verdict { Some(age) } else { None }
            });
        }
        if is_stale {
            cpu::flush_tlb();
        }
    }

    /// Sets what the last complete scan has found.
    #[cfg(test)]
    pub(super) fn assume_resident(&mut self, pages: u64) {
        self.resident = pages;
    }
}

/// Returns the class of an age in [`Ages`].
fn class(policy: &Selected, age: Age) -> usize {
    match policy.age(age) {
        0 => 0,
        1 => 1,
        2 | 3 => 2,
        _ => 3,
    }
}
