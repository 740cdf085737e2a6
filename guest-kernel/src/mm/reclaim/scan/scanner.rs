//! The scanner: the hands, and the record of what their choices led to.

use core::array;
use core::cmp::Ordering;

use aerostat_abi::statistics::AGES;
use aerostat_reclaim_policy::{Age, Arrival, Name, Refault};

use super::balance::{Balance, PageKind};
use super::efforts::{Effort, Efforts, Urgency};
use super::hand::Hand;
use super::thrash::{Tally, ThrashDetector};
use crate::mm::reclaim::swap::entry::SwapEntry;
use crate::time::Instant;

/// Evictions are counted modulo this in swap entries.
const EVICTION_COUNT_END: u64 = 1 << 20;

/// Chooses pages to evict, and learns from those that come back.
#[derive(Debug)]
pub(crate) struct Scanner {
    /// The hand over anonymous pages; `None` while there is nowhere to evict them to.
    anonymous: Option<Hand>,
    /// The hand over pages of files; `None` while no file is mapped.
    files: Option<Hand>,
    balance: Balance,
    tally: Tally,
    thrash: ThrashDetector,
    efforts: Efforts,
}

impl Scanner {
    pub(crate) const fn new() -> Self {
        Self {
            anonymous: None,
            files: None,
            balance: Balance::new(),
            tally: Tally::ZERO,
            thrash: ThrashDetector::new(),
            efforts: Efforts::new(),
        }
    }

    /// Adds the hand over pages of a kind, if there is none yet.
    pub(crate) fn start(&mut self, kind: PageKind, policy: Name) {
        let hand = match kind {
            PageKind::Anonymous => &mut self.anonymous,
            PageKind::File => &mut self.files,
        };
        hand.get_or_insert_with(|| Hand::new(policy));
    }

    /// Returns whether anonymous pages are evicted.
    pub(crate) fn evicts_anonymous(&self) -> bool {
        self.anonymous.is_some()
    }

    /// Returns how many kinds of pages are evicted.
    pub(crate) fn hands(&self) -> u32 {
        u32::from(self.anonymous.is_some()) + u32::from(self.files.is_some())
    }

    /// Returns the hand over pages of a kind.
    pub(crate) fn hand(&mut self, kind: PageKind) -> Option<&mut Hand> {
        match kind {
            PageKind::Anonymous => self.anonymous.as_mut(),
            PageKind::File => self.files.as_mut(),
        }
    }

    /// Returns the kind of page to evict next: the one whose evictions are regretted less, unless
    /// its last scans found fewer victims than those of the other kind.
    pub(crate) fn next_kind(&self) -> Option<PageKind> {
        match (&self.anonymous, &self.files) {
            (None, None) => None,
            (Some(_), None) => Some(PageKind::Anonymous),
            (None, Some(_)) => Some(PageKind::File),
            (Some(anonymous), Some(files)) => Some(match anonymous.vain_scans().cmp(&files.vain_scans()) {
                Ordering::Less => PageKind::Anonymous,
                Ordering::Equal => self.balance.preferred(),
                Ordering::Greater => PageKind::File,
            }),
        }
    }

    /// Notes that a victim of the hand can be evicted.
    pub(crate) fn note_victim(&mut self, kind: PageKind) {
        self.balance.evicted(kind);
        if let Some(hand) = self.hand(kind) {
            hand.note_victim();
        }
    }

    /// Counts an eviction, and returns its number as swap entries have it.
    pub(crate) fn count_eviction(&mut self) -> u32 {
        self.tally.evictions += 1;
        self.eviction_number()
    }

    fn eviction_number(&self) -> u32 {
        u32::try_from(self.tally.evictions % EVICTION_COUNT_END).unwrap_or(0)
    }

    /// Counts an evicted page that is in memory again. `is_touched` says whether a thread has
    /// touched it, or whether it came with another page.
    pub(crate) fn count_restore(&mut self, is_touched: bool) {
        self.tally.restores += 1;
        self.tally.touched_restores += u64::from(is_touched);
    }

    /// Returns the age with which a page arrives in memory. `entry` says when it was evicted, if it
    /// was.
    pub(crate) fn arrive(&mut self, kind: PageKind, entry: Option<SwapEntry>, is_touched: bool) -> Age {
        let now = self.eviction_number();
        let Some(hand) = self.hand(kind) else { return Age::default() };
        let arrival = match entry {
            _ if !is_touched => Arrival::Prefetch,
            None => Arrival::First,
            Some(entry) => {
                let (distance, resident) = (entry.distance(now), hand.resident_pages());
                Arrival::Refault(Refault { distance, resident, age: entry.age })
            }
        };
        let age = hand.arrive(arrival);
        if let Arrival::Refault(Refault { distance, resident, .. }) = arrival
            && distance < resident / 2
        {
            self.tally.refaults += 1;
            self.balance.refaulted(kind);
        }
        age
    }

    /// Notes that restoring `pages` pages took that long.
    pub(crate) fn note_restore_time(&mut self, kind: PageKind, pages: u64, nanoseconds: u64) {
        self.balance.restored(kind, pages, nanoseconds);
    }

    /// Returns whether the guest is thrashing.
    pub(crate) fn is_thrashing(&mut self, now: Instant) -> bool {
        self.thrash.observe(now, self.tally)
    }

    /// Returns how often the guest began to thrash.
    pub(crate) fn thrash_episodes(&self) -> u64 {
        self.thrash.episodes()
    }

    /// Returns the evictions and restores since boot.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns how many pages are in memory, by age, as the last complete scans found them.
    pub(crate) fn ages(&self) -> [u64; AGES] {
        let add = |sum: [u64; AGES], hand: &Hand| array::from_fn(|class| sum[class] + hand.ages()[class]);
        self.all_hands().fold([0; AGES], add)
    }

    /// Attributes what was scanned and freed since the last call.
    pub(crate) fn attribute(&mut self, urgency: Urgency, freed: u64) {
        let scanned = self.all_hands().map(Hand::scanned).sum();
        self.efforts.attribute(urgency, Effort { scanned, freed });
    }

    /// Returns what was scanned and freed since boot, by urgency.
    pub(crate) fn efforts(&self) -> Efforts {
        self.efforts
    }

    fn all_hands(&self) -> impl Iterator<Item = &Hand> {
        self.anonymous.iter().chain(&self.files)
    }
}

#[cfg(test)]
mod tests {
    use super::{PageKind, Scanner};
    use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
    use aerostat_reclaim_policy::{Age, Name};

    fn scanner(kinds: &[PageKind]) -> Scanner {
        let mut scanner = Scanner::new();
        kinds.iter().for_each(|kind| scanner.start(*kind, Name::Generations));
        scanner
    }

    #[test]
    fn only_kinds_with_a_hand_are_chosen() {
        assert_eq!((scanner(&[]).next_kind(), scanner(&[]).hands()), (None, 0));
        for kind in [PageKind::Anonymous, PageKind::File] {
            assert_eq!((scanner(&[kind]).next_kind(), scanner(&[kind]).hands()), (Some(kind), 1));
        }
    }

    #[test]
    fn a_kind_without_victims_gives_way_to_the_other() {
        let mut scanner = scanner(&[PageKind::Anonymous, PageKind::File]);
        assert_eq!(scanner.next_kind(), Some(PageKind::File), "files cost nothing to evict");
        scanner.hand(PageKind::File).unwrap().end_scan();
        assert_eq!(scanner.next_kind(), Some(PageKind::Anonymous));
        scanner.hand(PageKind::Anonymous).unwrap().end_scan();
        assert_eq!(scanner.next_kind(), Some(PageKind::File));
    }

    #[test]
    fn a_page_that_returns_soon_is_a_refault() {
        let mut scanner = scanner(&[PageKind::Anonymous]);
        let evicted = |count| Some(SwapEntry { stored: Stored::Filled(0), age: Age(0), count });
        let count = scanner.count_eviction();
        scanner.arrive(PageKind::Anonymous, evicted(count), false);
        assert_eq!(scanner.tally().refaults, 0, "no thread has touched it");
        (0..100).for_each(|_| _ = scanner.count_eviction());
        scanner.arrive(PageKind::Anonymous, evicted(count), true);
        assert_eq!(scanner.tally().refaults, 0, "more pages were evicted since than are resident");
        scanner.hand(PageKind::Anonymous).unwrap().assume_resident(1000);
        scanner.arrive(PageKind::Anonymous, evicted(count), true);
        assert_eq!(scanner.tally().refaults, 1);
    }
}
