//! Whether to move pages together for a whole huge frame, or to give 512 single frames instead.
//!
//! A whole huge frame is one entry, one range for the host to release, and later one fault; and the
//! guest keeps huge frames for itself. Moving costs a copy a page. Both are measured as they are
//! done; the rule compares.

use aerostat_abi::units::{BlockSize, HUGE_FRAMES};

use crate::pace::{Direction, Pace};

/// What moving a page is taken to cost before any was moved, in nanoseconds.
const FIRST_MOVE_NS: u64 = 3000;
/// What a frame that is given by itself costs later, in nanoseconds: it is taken back by itself,
/// and comes back with a fault of its own on a small page of the host. Measured at 12 us a frame
/// that is touched again (`docs/balloon-port.md`); half of them are taken to be.
const SINGLE_LATER_NS: u64 = 6000;
/// How long it is left alone after it came to nothing.
const VAIN_PAUSE_NS: u64 = 1_000_000_000;

/// What compaction can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compactable {
    /// Huge frames that would be whole.
    pub huge_frames: usize,
    /// Pages that would have to be moved for them.
    pub pages: u64,
}

/// What compaction has cost so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    move_ns: u64,
    not_before_ns: u64,
}

impl Compaction {
    pub(crate) const fn new() -> Self {
        Self { move_ns: FIRST_MOVE_NS, not_before_ns: 0 }
    }

    /// Whether it may be tried at all.
    pub(crate) fn is_open(&self, now_ns: u64) -> bool {
        now_ns >= self.not_before_ns
    }

    /// Whether that is cheaper than as many single frames.
    pub(crate) fn is_worth_it(&self, offer: Compactable, pace: &Pace) -> bool {
        let single_ns = pace.cost_ns(Direction::Inflate, BlockSize::Frame) + SINGLE_LATER_NS;
        let singles_ns = (offer.huge_frames as u64 * HUGE_FRAMES).saturating_mul(single_ns);
        offer.huge_frames > 0 && offer.pages.saturating_mul(self.move_ns) < singles_ns
    }

    /// What was offered has brought so many huge frames and taken so long.
    pub(crate) fn note(&mut self, offer: Compactable, gained: usize, elapsed_ns: u64, now_ns: u64) {
        if gained == 0 {
            self.not_before_ns = now_ns.saturating_add(VAIN_PAUSE_NS);
            return;
        }
        // Where only some came free, those have cost what all did.
        let pages = (offer.pages * gained as u64).div_ceil(offer.huge_frames.max(gained) as u64).max(1);
        self.move_ns = u64::midpoint(self.move_ns, elapsed_ns / pages);
    }
}

#[cfg(test)]
mod tests {
    use super::{Compactable, Compaction, VAIN_PAUSE_NS};
    use crate::pace::Pace;

    const HALF_USED: Compactable = Compactable { huge_frames: 4, pages: 4 * 256 };

    #[test]
    fn pages_are_moved_while_that_is_cheaper() {
        let (mut compaction, pace) = (Compaction::new(), Pace::new());
        assert!(compaction.is_worth_it(HALF_USED, &pace));
        assert!(!compaction.is_worth_it(Compactable::default(), &pace), "nothing is to be had");
        for _ in 0..20 {
            compaction.note(HALF_USED, 4, HALF_USED.pages * 30_000, 0);
        }
        assert!(!compaction.is_worth_it(HALF_USED, &pace));
        assert!(compaction.is_worth_it(Compactable { huge_frames: 4, pages: 4 * 32 }, &pace), "the emptiest still are");
    }

    #[test]
    fn what_came_free_has_cost_what_was_tried() {
        let pace = Pace::new();
        let mut compaction = Compaction::new();
        for _ in 0..20 {
            compaction.note(HALF_USED, 1, HALF_USED.pages * 5000, 0);
        }
        assert!(!compaction.is_worth_it(HALF_USED, &pace), "one of four: each page counts four times");
    }

    #[test]
    fn after_an_attempt_in_vain_it_rests() {
        let mut compaction = Compaction::new();
        compaction.note(HALF_USED, 0, 1, 5);
        assert!(!compaction.is_open(6) && compaction.is_open(5 + VAIN_PAUSE_NS));
    }
}
