//! Measures the guest kernel's frame allocator, compiled for the host: allocating and freeing a
//! block, by one thread and by two at the same time.

use std::time::Duration;

use aerostat_guest::host_bench::{Blocks, allocate_and_free};

use crate::row::Row;
use crate::sample::median;

const SAMPLES: usize = 9;
const PAIRS: u32 = 200_000;
const FRAME_GOAL_NS: f64 = 20.0;
const HUGE_GOAL_NS: f64 = 100.0;

pub(super) fn measure() -> Vec<Row> {
    [
        ("frame_alloc_ns", Blocks::Frames, 1, FRAME_GOAL_NS),
        ("frame_alloc_2_threads_ns", Blocks::Frames, 2, FRAME_GOAL_NS),
        ("huge_alloc_ns", Blocks::Huge, 1, HUGE_GOAL_NS),
        ("huge_alloc_2_threads_ns", Blocks::Huge, 2, HUGE_GOAL_NS),
    ]
    .map(|(name, blocks, threads, goal)| Row::plain(name, pair_ns(blocks, threads), "ns").goal(goal))
    .into()
}

fn pair_ns(blocks: Blocks, threads: usize) -> f64 {
    let sample = |_| {
        let time: Duration = allocate_and_free(blocks, threads, PAIRS);
        time.as_secs_f64() * 1e9 / f64::from(PAIRS)
    };
    median((0..SAMPLES).map(sample).collect())
}
