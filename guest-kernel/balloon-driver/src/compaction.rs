//! Decides whether to move pages for a whole huge frame, or to inflate 512 single frames instead.
//!
//! A whole huge frame is one entry, one range for the host to release, and later one fault; and the
//! guest keeps huge frames for itself. Moving costs one copy for each page. The driver measures
//! both costs as it works, and compares them.

use aerostat_abi::units::{BlockSize, HUGE_FRAMES};

use crate::pace::{Direction, Pace};

/// The assumed cost of moving a page before any was moved, in nanoseconds.
const FIRST_MOVE_NS: u64 = 3000;
/// The later cost of a frame that is ballooned as a single one, in nanoseconds: it is deflated as a
/// single one, and its first touch is a fault of its own on a small page of the host. Measured at
/// 12 us for a frame that is touched again (`docs/balloon-port.md`); half of the frames are assumed
/// to be touched.
const SINGLE_LATER_NS: u64 = 6000;
/// The pause after a compaction that made no huge frame whole.
const FAILURE_PAUSE_NS: u64 = 1_000_000_000;

/// The estimated result of a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compactable {
    /// Huge frames that would become whole.
    pub huge_frames: usize,
    /// Pages that would have to be moved for them.
    pub pages: u64,
}

/// The cost of compaction so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compaction {
    move_ns: u64,
    not_before_ns: u64,
}

impl Compaction {
    pub(crate) const fn new() -> Self {
        Self { move_ns: FIRST_MOVE_NS, not_before_ns: 0 }
    }

    /// Returns whether compaction may be tried now.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.not_before_ns
    }

    /// Returns whether the compaction is cheaper than as many single frames.
    pub(crate) fn is_worth_it(&self, estimate: Compactable, pace: &Pace) -> bool {
        let single_ns = pace.cost_ns(Direction::Inflate, BlockSize::Frame) + SINGLE_LATER_NS;
        let singles_ns = (estimate.huge_frames as u64 * HUGE_FRAMES).saturating_mul(single_ns);
        estimate.huge_frames > 0 && estimate.pages.saturating_mul(self.move_ns) < singles_ns
    }

    /// Notes that the compaction that was estimated so made `gained` huge frames whole, and took
    /// `elapsed_ns`.
    pub(crate) fn note(&mut self, estimate: Compactable, gained: usize, elapsed_ns: u64, now_ns: u64) {
        if gained == 0 {
            self.not_before_ns = now_ns.saturating_add(FAILURE_PAUSE_NS);
            return;
        }
        // Where only some became whole, they bear the cost of all moves.
        let pages = (estimate.pages * gained as u64).div_ceil(estimate.huge_frames.max(gained) as u64).max(1);
        self.move_ns = u64::midpoint(self.move_ns, elapsed_ns / pages);
    }
}

#[cfg(test)]
mod tests {
    use super::{Compactable, Compaction, FAILURE_PAUSE_NS};
    use crate::pace::Pace;

    const HALF_USED: Compactable = Compactable { huge_frames: 4, pages: 4 * 256 };

    #[test]
    fn compaction_is_chosen_while_it_is_cheaper() {
        let (mut compaction, pace) = (Compaction::new(), Pace::new());
        assert!(compaction.is_worth_it(HALF_USED, &pace));
        assert!(!compaction.is_worth_it(Compactable::default(), &pace), "there is nothing to compact");
        for _ in 0..20 {
            compaction.note(HALF_USED, 4, HALF_USED.pages * 30_000, 0);
        }
        assert!(!compaction.is_worth_it(HALF_USED, &pace));
        assert!(
            compaction.is_worth_it(Compactable { huge_frames: 4, pages: 4 * 32 }, &pace),
            "the emptiest huge frames are still worth it"
        );
    }

    #[test]
    fn the_cost_of_all_moves_counts_for_the_huge_frames_gained() {
        let pace = Pace::new();
        let mut compaction = Compaction::new();
        for _ in 0..20 {
            compaction.note(HALF_USED, 1, HALF_USED.pages * 5000, 0);
        }
        assert!(!compaction.is_worth_it(HALF_USED, &pace), "one of four: each page counts four times");
    }

    #[test]
    fn compaction_pauses_after_a_failed_attempt() {
        let mut compaction = Compaction::new();
        compaction.note(HALF_USED, 0, 1, 5);
        assert!(!compaction.is_due(6) && compaction.is_due(5 + FAILURE_PAUSE_NS));
    }
}
