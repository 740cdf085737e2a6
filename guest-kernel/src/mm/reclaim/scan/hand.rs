//! A hand: visits the pages of one kind of region, in the order of their addresses, and asks a
//! policy about each.

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::{FRAME_BYTES, HUGE_FRAMES};
use aerostat_reclaim_policy::{Age, Arrival, Name, Pass, Policy, Seen, Selected, Verdict};

use crate::arch::x86_64::cpu;
use crate::mm::page_table::PageTables;

/// Most evictions in one batch, and so behind one TLB flush.
pub(crate) const BATCH: usize = 32;
/// Most pages that one batch visits.
const VISITS: u64 = 256;
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

/// Pages whose translation the hand has revoked: to be evicted or reinstated.
#[derive(Debug)]
pub(crate) struct Victims {
    pages: [u64; BATCH],
    count: usize,
}

impl Victims {
    pub(crate) fn pages(&self) -> &[u64] {
        &self.pages[..self.count]
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

    /// Ages pages from `at` on, up to `end` at most, and revokes those that the policy gives up.
    /// Returns these, and the address that the visit has reached.
    pub(crate) fn visit_pages(&mut self, tables: &mut PageTables, at: u64, end: u64) -> (Victims, u64) {
        let end = end.min(at + VISITS * FRAME_BYTES);
        let mut victims = Victims { pages: [0; BATCH], count: 0 };
        let mut is_stale = false;
        let mut page = at;
        while page < end && victims.count < BATCH {
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
                victims.pages[victims.count] = page;
                victims.count += 1;
            }
            page += FRAME_BYTES;
        }
        if is_stale {
            cpu::flush_tlb();
        }
        (victims, page)
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
