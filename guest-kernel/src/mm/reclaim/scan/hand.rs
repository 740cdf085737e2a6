//! A hand: goes round the pages of one kind of region and asks a policy about each.

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::{FRAME_BYTES, HUGE_FRAMES};
use aerostat_reclaim_policy::{Age, Name, Pass, Policy, Seen, Selected, Verdict};

use crate::arch::x86_64::cpu;
use crate::mm::page_table::PageTables;

/// Evictions in one batch, and so behind one TLB flush.
pub(crate) const BATCH: usize = 32;
/// Pages that one batch may visit.
const VISITS: u64 = 256;
/// After so many rounds without a single eviction, huge pages that are in use are split: part of
/// them may be cold.
pub(crate) const PATIENT_ROUNDS: u32 = 2;

/// Where the hand is, and what it has come to.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) at: u64,
    pub(crate) policy: Selected,
    /// Rounds that ended without an eviction, since the last that had one.
    pub(crate) rounds_in_vain: u32,
    /// Since the hand last began; and pages in memory as the round before has found.
    round: Pass,
    resident: u64,
    /// Pages that stayed, by age: in this round so far, and in the last one.
    ages_so_far: Ages,
    ages_of_last_round: Ages,
    /// Pages that the hand has come to since it began to go round.
    scanned: u64,
}

/// Pages by age, in steps of the policy since their last known use: none, one, two or three, more.
pub(crate) type Ages = [u64; AGES];

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
    pub(crate) fn new(policy: Name) -> Self {
        let round = Pass { visited: 0, evicted: 0 };
        Self {
            at: 0,
            policy: policy.policy(),
            rounds_in_vain: 0,
            round,
            resident: 0,
            ages_so_far: [0; AGES],
            ages_of_last_round: [0; AGES],
            scanned: 0,
        }
    }

    /// The hand has come round.
    pub(crate) fn end_round(&mut self) {
        self.at = 0;
        self.rounds_in_vain = if self.round.evicted > 0 { 0 } else { self.rounds_in_vain + 1 };
        self.resident = self.round.visited;
        self.ages_of_last_round = core::mem::take(&mut self.ages_so_far);
        let round = core::mem::replace(&mut self.round, Pass { visited: 0, evicted: 0 });
        self.policy.pass_ended(round);
    }

    /// A page that the hand came to goes.
    pub(crate) fn note_eviction(&mut self) {
        self.round.evicted += 1;
    }

    /// Pages that the last round found in memory.
    pub(crate) fn resident_pages(&self) -> u64 {
        self.resident.max(self.round.visited).max(1)
    }

    /// Pages in memory by age, as the last round has found them.
    pub(crate) fn ages(&self) -> Ages {
        self.ages_of_last_round
    }

    pub(crate) fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Ages the huge page at `at`; says whether it is cold, or has been waited for in vain: then it
    /// is not to stay in one piece.
    pub(crate) fn visit_huge(&mut self, tables: &mut PageTables, at: u64) -> bool {
        let mut kept = None;
        let was_accessed =
            tables.visit_huge(at, &mut |age, accessed| match self.policy.visited(Seen { age, accessed }) {
                Verdict::Keep(age) => *kept.insert(age),
                Verdict::Evict => age,
            });
        self.round.visited += HUGE_FRAMES;
        self.scanned += HUGE_FRAMES;
        if was_accessed {
            cpu::flush_tlb();
        }
        match kept {
            Some(age) if self.rounds_in_vain < PATIENT_ROUNDS => {
                self.ages_so_far[class(&self.policy, age)] += HUGE_FRAMES;
                false
            }
            _ => true,
        }
    }

    /// Ages pages from `at` on, not past `end`, and revokes what the policy gives up. Returns where
    /// it has got to.
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
            self.round.visited += u64::from(visited.is_mapped);
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
}

/// The class of age of a page with this age.
fn class(policy: &Selected, age: Age) -> usize {
    match policy.age(age) {
        0 => 0,
        1 => 1,
        2 | 3 => 2,
        _ => 3,
    }
}
