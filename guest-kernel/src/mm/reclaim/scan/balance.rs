//! Which kind of page goes next: pages of files, which only have to be read again, or anonymous
//! ones, which have to be kept somewhere first. By measurement, not by dogma: whichever is
//! regretted less, counting how often pages that were just evicted are wanted again, and what
//! bringing one back has cost of late. Linux decides likewise since 5.8 (`lru_note_cost` there).

/// What pages are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// Memory of the application.
    Anonymous,
    /// What is on a disk.
    File,
}

/// Evictions after which what has been is worth half.
const HALF_LIFE: u64 = 4096;
/// As much as nothing is known: neither kind has been regretted, and both cost the same.
const BEGINNING: Regret = Regret { evictions: 0, refaults: 0, restore_ns: 10_000 };

/// How one kind has fared of late.
#[derive(Clone, Copy, Debug)]
struct Regret {
    evictions: u64,
    refaults: u64,
    /// Of one page, on average.
    restore_ns: u64,
}

impl Regret {
    /// Nanoseconds per eviction that are likely to be paid later, times 2^10.
    fn expected(&self) -> u64 {
        self.restore_ns.saturating_mul((self.refaults + 1) << 10) / (self.evictions + 16)
    }

    fn age(&mut self) {
        if self.evictions >= HALF_LIFE {
            self.evictions /= 2;
            self.refaults /= 2;
        }
    }
}

/// The account of both kinds.
#[derive(Debug)]
pub(crate) struct Balance {
    anonymous: Regret,
    file: Regret,
}

impl Balance {
    /// Nothing is known.
    pub(crate) const fn new() -> Self {
        Self { anonymous: BEGINNING, file: BEGINNING }
    }

    /// A page was evicted.
    pub(crate) fn evicted(&mut self, kind: PageKind) {
        let regret = self.of(kind);
        regret.evictions += 1;
        regret.age();
    }

    /// A page that was evicted shortly before was needed.
    pub(crate) fn refaulted(&mut self, kind: PageKind) {
        self.of(kind).refaults += 1;
    }

    /// `pages` pages were brought back in so many nanoseconds.
    pub(crate) fn restored(&mut self, kind: PageKind, pages: u64, nanoseconds: u64) {
        if let Some(each) = nanoseconds.checked_div(pages) {
            let regret = self.of(kind);
            regret.restore_ns = (7 * regret.restore_ns + each.min(1 << 40)) / 8;
        }
    }

    /// The kind that is likely to be regretted less; pages of files where that is the same, as
    /// nothing has to be kept of them.
    pub(crate) fn preferred(&self) -> PageKind {
        if self.file.expected() <= self.anonymous.expected() { PageKind::File } else { PageKind::Anonymous }
    }

    fn of(&mut self, kind: PageKind) -> &mut Regret {
        match kind {
            PageKind::Anonymous => &mut self.anonymous,
            PageKind::File => &mut self.file,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Balance, PageKind};

    fn evict(balance: &mut Balance, kind: PageKind, evictions: u64, refaults: u64) {
        (0..evictions).for_each(|_| balance.evicted(kind));
        (0..refaults).for_each(|_| balance.refaulted(kind));
    }

    #[test]
    fn files_go_first_as_long_as_nobody_misses_them() {
        let mut balance = Balance::new();
        assert_eq!(balance.preferred(), PageKind::File);
        evict(&mut balance, PageKind::File, 1000, 0);
        evict(&mut balance, PageKind::Anonymous, 1000, 0);
        assert_eq!(balance.preferred(), PageKind::File);
    }

    #[test]
    fn files_that_are_missed_stay() {
        let mut balance = Balance::new();
        evict(&mut balance, PageKind::File, 1000, 500);
        evict(&mut balance, PageKind::Anonymous, 1000, 10);
        assert_eq!(balance.preferred(), PageKind::Anonymous);
        evict(&mut balance, PageKind::Anonymous, 1000, 1900);
        assert_eq!(balance.preferred(), PageKind::File, "anonymous pages are missed more");
    }

    #[test]
    fn what_comes_back_cheaply_goes_more_easily() {
        let mut balance = Balance::new();
        evict(&mut balance, PageKind::File, 1000, 100);
        evict(&mut balance, PageKind::Anonymous, 1000, 200);
        assert_eq!(balance.preferred(), PageKind::File);
        (0..64).for_each(|_| balance.restored(PageKind::File, 1, 100_000));
        (0..64).for_each(|_| balance.restored(PageKind::Anonymous, 16, 48_000));
        assert_eq!(balance.preferred(), PageKind::Anonymous);
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut balance = Balance::new();
        evict(&mut balance, PageKind::File, 4000, 4000);
        evict(&mut balance, PageKind::Anonymous, 4000, 100);
        assert_eq!(balance.preferred(), PageKind::Anonymous);
        for _ in 0..20 {
            evict(&mut balance, PageKind::File, 4000, 10);
        }
        assert_eq!(balance.preferred(), PageKind::File);
    }
}
