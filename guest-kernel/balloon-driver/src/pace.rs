//! How much is moved at once: a *burst*, all that the driver does before others may run, takes no
//! longer than [`PAUSE_GOAL_NS`].
//!
//! What a block costs is measured with every batch, apart for giving and taking and for both sizes;
//! a batch is as long as the rest of the burst allows. A host that turns slow makes the next
//! batches short, and after that they grow by and by.

use aerostat_abi::batch::CAPACITY;
use aerostat_abi::units::{BlockSize, to_usize};

/// How long nobody else in the guest runs, at most, as far as the driver can tell in advance.
pub const PAUSE_GOAL_NS: u64 = 2_000_000;
/// When so much of it is over, another batch is not worth its call.
const WORTHWHILE_NS: u64 = PAUSE_GOAL_NS * 3 / 4;

/// What blocks are taken to cost before the first was moved, in nanoseconds: a host that releases 2
/// MiB pages at 200 GiB/s, and 4 KiB pages at 4 GiB/s.
const FIRST_COST_NS: [u64; 2] = [10_000, 1000];
/// Shorter batches that take less, but more than was thought, tell more about the price of a call
/// than about that of a block.
const TELLING_BLOCKS: usize = 32;
const TELLING_NS: u64 = 200_000;

/// Which way a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inflate,
    Deflate,
}

/// What batches cost, and when the burst began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    burst_since_ns: Option<u64>,
    /// By direction, then huge frames and single ones.
    costs_ns: [[u64; 2]; 2],
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { burst_since_ns: None, costs_ns: [FIRST_COST_NS; 2] }
    }

    /// The driver runs: a burst begins, unless one goes on.
    pub(crate) fn go_on(&mut self, now_ns: u64) {
        self.burst_since_ns.get_or_insert(now_ns);
    }

    /// Others may run.
    pub(crate) fn end_burst(&mut self) {
        self.burst_since_ns = None;
    }

    /// What is left of the burst.
    pub(crate) fn left_ns(&self, now_ns: u64) -> u64 {
        let since_ns = self.burst_since_ns.unwrap_or(now_ns);
        PAUSE_GOAL_NS.saturating_sub(now_ns.saturating_sub(since_ns))
    }

    pub(crate) fn is_burst_over(&self, now_ns: u64) -> bool {
        self.left_ns(now_ns) < PAUSE_GOAL_NS - WORTHWHILE_NS
    }

    /// Blocks that the rest of the burst has time for; at least one, or nothing would ever move.
    pub(crate) fn blocks(&self, direction: Direction, size: BlockSize, now_ns: u64) -> usize {
        let blocks = self.left_ns(now_ns) / self.cost_ns(direction, size).max(1);
        to_usize(blocks).clamp(1, CAPACITY)
    }

    /// What a block costs.
    pub(crate) fn cost_ns(&self, direction: Direction, size: BlockSize) -> u64 {
        self.costs_ns[direction as usize][usize::from(size == BlockSize::Frame)]
    }

    /// What so many blocks cost.
    pub(crate) fn batch_ns(&self, direction: Direction, size: BlockSize, blocks: usize) -> u64 {
        self.cost_ns(direction, size).saturating_mul(blocks as u64)
    }

    /// A batch of so many blocks took so long.
    pub(crate) fn note(&mut self, direction: Direction, size: BlockSize, blocks: usize, elapsed_ns: u64) {
        let Some(each_ns) = elapsed_ns.checked_div(blocks as u64) else { return };
        let cost_ns = &mut self.costs_ns[direction as usize][usize::from(size == BlockSize::Frame)];
        // Bad news counts at once, good news by and by.
        if each_ns < *cost_ns {
            *cost_ns = u64::midpoint(*cost_ns, each_ns);
        } else if blocks >= TELLING_BLOCKS || elapsed_ns >= TELLING_NS {
            *cost_ns = each_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use aerostat_abi::batch::CAPACITY;
    use aerostat_abi::units::BlockSize;

    use super::{Direction, PAUSE_GOAL_NS, Pace};

    const INFLATE_HUGE: (Direction, BlockSize) = (Direction::Inflate, BlockSize::Huge);

    fn blocks(pace: &Pace, now_ns: u64) -> usize {
        pace.blocks(INFLATE_HUGE.0, INFLATE_HUGE.1, now_ns)
    }

    fn note(pace: &mut Pace, blocks: usize, elapsed_ns: u64) {
        pace.note(INFLATE_HUGE.0, INFLATE_HUGE.1, blocks, elapsed_ns);
    }

    #[test]
    fn a_slow_host_is_given_little_at_once_and_a_fast_one_all_that_fits() {
        let mut pace = Pace::new();
        pace.go_on(0);
        for _ in 0..20 {
            note(&mut pace, 64, 64 * 1000);
        }
        assert_eq!(blocks(&pace, 0), CAPACITY);
        for _ in 0..20 {
            note(&mut pace, 4, 4 * PAUSE_GOAL_NS / 10);
        }
        assert!((9..=11).contains(&blocks(&pace, 0)), "{}", blocks(&pace, 0));
        assert_eq!(
            pace.cost_ns(Direction::Deflate, BlockSize::Huge),
            Pace::new().cost_ns(Direction::Deflate, BlockSize::Huge)
        );
    }

    #[test]
    fn the_later_in_the_burst_the_shorter_the_batch() {
        let mut pace = Pace::new();
        pace.go_on(1000);
        let all = blocks(&pace, 1000);
        pace.go_on(1000 + PAUSE_GOAL_NS / 2);
        assert_eq!(blocks(&pace, 1000 + PAUSE_GOAL_NS / 2), all / 2);
        assert_eq!(blocks(&pace, 1000 + 2 * PAUSE_GOAL_NS), 1, "it goes on all the same");
        assert!(pace.is_burst_over(1000 + PAUSE_GOAL_NS) && !pace.is_burst_over(1000 + PAUSE_GOAL_NS / 2));
        pace.end_burst();
        pace.go_on(3 * PAUSE_GOAL_NS);
        assert_eq!(blocks(&pace, 3 * PAUSE_GOAL_NS), all);
    }

    #[test]
    fn a_host_that_was_slow_for_a_moment_is_soon_trusted_again() {
        let mut pace = Pace::new();
        pace.go_on(0);
        let usual = blocks(&pace, 0);
        note(&mut pace, 100, 100 * PAUSE_GOAL_NS);
        assert_eq!(blocks(&pace, 0), 1);
        for _ in 0..12 {
            let next = blocks(&pace, 0);
            note(&mut pace, next, 25_000 + 7000 * next as u64);
        }
        assert!(blocks(&pace, 0) >= usual, "{} blocks", blocks(&pace, 0));
    }

    #[test]
    fn a_call_with_next_to_nothing_tells_nothing_about_blocks() {
        let mut pace = Pace::new();
        let before = pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1);
        note(&mut pace, 1, 100_000);
        assert_eq!(pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1), before);
        note(&mut pace, 1, PAUSE_GOAL_NS);
        assert!(pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1) > 50 * before, "but that it takes so long");
    }
}
