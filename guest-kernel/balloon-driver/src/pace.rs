//! How much the driver moves at once: a *burst*, all that it does before other threads may run,
//! takes no longer than [`PAUSE_GOAL_NS`].
//!
//! The cost of a block is measured with every batch, separately for each direction and size. A
//! batch is as long as the rest of the burst allows. When the host becomes slow, the next batches
//! are short, and grow gradually afterwards.

use aerostat_abi::batch::CAPACITY;
use aerostat_abi::units::{BlockSize, to_usize};

/// The longest time for which the driver keeps other threads of the guest from running, as far as
/// it can estimate in advance.
pub const PAUSE_GOAL_NS: u64 = 2_000_000;
/// The part of a burst after which another batch is not worth its call.
const WORTHWHILE_NS: u64 = PAUSE_GOAL_NS * 3 / 4;

/// The assumed costs of huge and single frames before the first was moved, in nanoseconds: a host
/// that releases 2 MiB pages at 200 GiB/s, and 4 KiB pages at 4 GiB/s.
const FIRST_COST_NS: [u64; 2] = [10_000, 1000];
/// A batch that took longer than estimated raises the estimate only if it has so many blocks or
/// took so long. The time of a smaller one is mostly that of the call itself.
const SAMPLE_BLOCKS: usize = 32;
const SAMPLE_NS: u64 = 200_000;

/// The direction of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inflate,
    Deflate,
}

/// The costs of blocks, and when the burst began.
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

    /// Begins a burst, unless one has begun already.
    pub(crate) fn begin_burst(&mut self, now_ns: u64) {
        self.burst_since_ns.get_or_insert(now_ns);
    }

    /// Ends the burst: other threads may run.
    pub(crate) fn end_burst(&mut self) {
        self.burst_since_ns = None;
    }

    /// Returns the time that is left of the burst.
    pub(crate) fn left_ns(&self, now_ns: u64) -> u64 {
        let since_ns = self.burst_since_ns.unwrap_or(now_ns);
        PAUSE_GOAL_NS.saturating_sub(now_ns.saturating_sub(since_ns))
    }

    /// Returns whether too little is left of the burst for another batch.
    pub(crate) fn is_burst_over(&self, now_ns: u64) -> bool {
        self.left_ns(now_ns) < PAUSE_GOAL_NS - WORTHWHILE_NS
    }

    /// Returns the number of blocks that the rest of the burst has time for. It is at least one, so
    /// that memory moves on any host.
    pub(crate) fn max_blocks(&self, direction: Direction, size: BlockSize, now_ns: u64) -> usize {
        let blocks = self.left_ns(now_ns) / self.cost_ns(direction, size).max(1);
        to_usize(blocks).clamp(1, CAPACITY)
    }

    /// Returns the estimated cost of a block.
    pub(crate) fn cost_ns(&self, direction: Direction, size: BlockSize) -> u64 {
        self.costs_ns[direction as usize][usize::from(size == BlockSize::Frame)]
    }

    /// Returns the estimated cost of a batch.
    pub(crate) fn batch_ns(&self, direction: Direction, size: BlockSize, blocks: usize) -> u64 {
        self.cost_ns(direction, size).saturating_mul(blocks as u64)
    }

    /// Notes that a batch of `blocks` blocks took `elapsed_ns`.
    pub(crate) fn note(&mut self, direction: Direction, size: BlockSize, blocks: usize, elapsed_ns: u64) {
        let Some(each_ns) = elapsed_ns.checked_div(blocks as u64) else { return };
        let cost_ns = &mut self.costs_ns[direction as usize][usize::from(size == BlockSize::Frame)];
        // A higher cost counts at once, a lower one gradually.
        if each_ns < *cost_ns {
            *cost_ns = u64::midpoint(*cost_ns, each_ns);
        } else if blocks >= SAMPLE_BLOCKS || elapsed_ns >= SAMPLE_NS {
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
        pace.max_blocks(INFLATE_HUGE.0, INFLATE_HUGE.1, now_ns)
    }

    fn note(pace: &mut Pace, blocks: usize, elapsed_ns: u64) {
        pace.note(INFLATE_HUGE.0, INFLATE_HUGE.1, blocks, elapsed_ns);
    }

    #[test]
    fn batches_are_short_on_a_slow_host_and_full_on_a_fast_one() {
        let mut pace = Pace::new();
        pace.begin_burst(0);
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
    fn batches_get_shorter_towards_the_end_of_a_burst() {
        let mut pace = Pace::new();
        pace.begin_burst(1000);
        let all = blocks(&pace, 1000);
        pace.begin_burst(1000 + PAUSE_GOAL_NS / 2);
        assert_eq!(blocks(&pace, 1000 + PAUSE_GOAL_NS / 2), all / 2);
        assert_eq!(blocks(&pace, 1000 + 2 * PAUSE_GOAL_NS), 1, "at least one block moves");
        assert!(pace.is_burst_over(1000 + PAUSE_GOAL_NS) && !pace.is_burst_over(1000 + PAUSE_GOAL_NS / 2));
        pace.end_burst();
        pace.begin_burst(3 * PAUSE_GOAL_NS);
        assert_eq!(blocks(&pace, 3 * PAUSE_GOAL_NS), all);
    }

    #[test]
    fn batches_grow_again_after_a_host_was_slow_once() {
        let mut pace = Pace::new();
        pace.begin_burst(0);
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
    fn a_small_batch_does_not_raise_the_estimate() {
        let mut pace = Pace::new();
        let before = pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1);
        note(&mut pace, 1, 100_000);
        assert_eq!(pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1), before);
        note(&mut pace, 1, PAUSE_GOAL_NS);
        assert!(pace.cost_ns(INFLATE_HUGE.0, INFLATE_HUGE.1) > 50 * before, "unless it takes very long");
    }
}
