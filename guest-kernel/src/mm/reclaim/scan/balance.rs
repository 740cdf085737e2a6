//! Decides which kind of page is evicted next: pages of files, which only have to be read again, or
//! anonymous pages, which must be stored first.
//!
//! It measures instead of preferring one kind: the kind goes whose evictions are regretted less. It
//! counts how often pages that were just evicted are touched again, and what restoring a page has
//! cost recently. Linux decides likewise since 5.8 (`lru_note_cost`). Pure.

/// What a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// Memory of the application that no file backs.
    Anonymous,
    /// A mapped file.
    File,
}

/// Evictions after which older ones count half.
const HALF_LIFE: u64 = 4096;
/// Before anything is known: no eviction is regretted, and both kinds cost the same.
const UNKNOWN: Regret = Regret { evictions: 0, refaults: 0, restore_ns: 10_000 };

/// What evictions of one kind have led to recently.
#[derive(Clone, Copy, Debug)]
struct Regret {
    evictions: u64,
    refaults: u64,
    /// Average time to restore a page.
    restore_ns: u64,
}

impl Regret {
    /// Returns the nanoseconds that an eviction is likely to cost later, times 2^10.
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

/// The regret of both kinds.
#[derive(Debug)]
pub(crate) struct Balance {
    anonymous: Regret,
    file: Regret,
}

impl Balance {
    /// Creates a balance that knows nothing yet.
    pub(crate) const fn new() -> Self {
        Self { anonymous: UNKNOWN, file: UNKNOWN }
    }

    /// Counts an eviction.
    pub(crate) fn evicted(&mut self, kind: PageKind) {
        let regret = self.of(kind);
        regret.evictions += 1;
        regret.age();
    }

    /// Counts a page that was touched shortly after its eviction.
    pub(crate) fn refaulted(&mut self, kind: PageKind) {
        self.of(kind).refaults += 1;
    }

    /// Notes that restoring `pages` pages took that many nanoseconds.
    pub(crate) fn restored(&mut self, kind: PageKind, pages: u64, nanoseconds: u64) {
        if let Some(each) = nanoseconds.checked_div(pages) {
            let regret = self.of(kind);
            regret.restore_ns = (7 * regret.restore_ns + each.min(1 << 40)) / 8;
        }
    }

    /// Returns the kind whose evictions are likely to be regretted less, and files where both are
    /// alike, because nothing of them has to be stored.
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
    fn files_go_first_while_their_evictions_are_not_regretted() {
        let mut balance = Balance::new();
        assert_eq!(balance.preferred(), PageKind::File);
        evict(&mut balance, PageKind::File, 1000, 0);
        evict(&mut balance, PageKind::Anonymous, 1000, 0);
        assert_eq!(balance.preferred(), PageKind::File);
    }

    #[test]
    fn files_stay_when_their_evictions_are_regretted() {
        let mut balance = Balance::new();
        evict(&mut balance, PageKind::File, 1000, 500);
        evict(&mut balance, PageKind::Anonymous, 1000, 10);
        assert_eq!(balance.preferred(), PageKind::Anonymous);
        evict(&mut balance, PageKind::Anonymous, 1000, 1900);
        assert_eq!(balance.preferred(), PageKind::File, "anonymous pages are regretted more");
    }

    #[test]
    fn pages_that_are_cheap_to_restore_go_first() {
        let mut balance = Balance::new();
        evict(&mut balance, PageKind::File, 1000, 100);
        evict(&mut balance, PageKind::Anonymous, 1000, 200);
        assert_eq!(balance.preferred(), PageKind::File);
        (0..64).for_each(|_| balance.restored(PageKind::File, 1, 100_000));
        (0..64).for_each(|_| balance.restored(PageKind::Anonymous, 16, 48_000));
        assert_eq!(balance.preferred(), PageKind::Anonymous);
    }

    #[test]
    fn old_regrets_fade() {
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
