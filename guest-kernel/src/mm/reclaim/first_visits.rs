//! First visits ahead of the hand.
//!
//! The first visit of a page tells nothing: the touch that brought the page in has set its accessed
//! bit. So the background visits pages of files once, soon after they were read. When memory is
//! short, the hand finds at once which of them were used since, and drops the others. Where the
//! host shadows page tables, to clear the bit of a page costs several times what it costs to drop
//! it afterwards; here no thread waits for that.

use core::ops::Range;

use aerostat_abi::units::HUGE_BYTES;

use super::{RECLAIMER, Reclaimer};
use crate::mm::SPACE;
use crate::mm::reclaim::scan::balance::PageKind;

/// Slots that are visited at once: 256 MiB.
const SLOTS_AT_ONCE: usize = 128;

/// Pages of files that were read and not visited since: a range that holds all of them.
#[derive(Debug)]
pub(super) struct FirstVisits {
    due: Range<u64>,
}

impl FirstVisits {
    pub(super) const fn new() -> Self {
        Self { due: 0..0 }
    }

    /// Notes that pages were read. Returns whether none was due before.
    pub(super) fn note(&mut self, pages: &Range<u64>) -> bool {
        let is_first = self.due.is_empty();
        self.due = if is_first { pages.clone() } else { self.due.start.min(pages.start)..self.due.end.max(pages.end) };
        is_first
    }

    /// Removes the first pages that are due, all of one slot, and returns them.
    fn next(&mut self) -> Option<Range<u64>> {
        let Range { start, end } = self.due;
        if self.due.is_empty() {
            return None;
        }
        self.due.start = (start + 1).next_multiple_of(HUGE_BYTES).min(end);
        Some(start..self.due.start)
    }
}

impl Reclaimer {
    /// Visits new pages of a slot. Returns whether any were due.
    fn visit_new_slot(&mut self) -> bool {
        let Some(pages) = self.first_visits.next() else { return false };
        let mut space = SPACE.lock();
        if let (Some(hand), Some(tables)) = (self.scanner.hand(PageKind::File), space.tables_mut()) {
            hand.visit_new_pages(tables, pages);
        }
        true
    }
}

/// Returns whether pages of files are due for their first visit.
pub(crate) fn are_due() -> bool {
    !RECLAIMER.lock().first_visits.due.is_empty()
}

/// Visits pages of files that are due, up to so many at once. Calls `between` after each slot, with
/// no lock held.
pub(crate) fn visit(mut between: impl FnMut()) {
    for _ in 0..SLOTS_AT_ONCE {
        if !RECLAIMER.lock().visit_new_slot() {
            return;
        }
        between();
    }
}

#[cfg(test)]
mod tests {
    use super::FirstVisits;
    use aerostat_abi::units::HUGE_BYTES;

    #[test]
    fn pages_are_due_once_a_slot_at_a_time() {
        let mut visits = FirstVisits::new();
        assert_eq!(visits.next(), None);
        assert!(visits.note(&(HUGE_BYTES - 4096..HUGE_BYTES + 8192)));
        assert!(!visits.note(&(HUGE_BYTES + 8192..HUGE_BYTES + 12288)));
        assert_eq!(visits.next(), Some(HUGE_BYTES - 4096..HUGE_BYTES));
        assert_eq!(visits.next(), Some(HUGE_BYTES..HUGE_BYTES + 12288));
        assert_eq!(visits.next(), None);
        assert!(visits.note(&(0..4096)));
    }
}
