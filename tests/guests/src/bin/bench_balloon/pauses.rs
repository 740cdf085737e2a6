//! Work in units of 10 us while memory leaves and returns, and for as long again while nothing moves: how long it stood still at worst.

use core::hint::black_box;

use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_guest::app::{self, Instant};

use crate::{MOVED, log, ready, touched};

#[path = "../../gaps.rs"]
mod gaps;

use gaps::Gaps;

/// A unit of work.
const UNIT_NS: u64 = 10_000;
/// What a stretch of work lasts at least: longer than the host takes to notice that the guest is ready, and to move memory.
const SHORTEST_NS: u64 = 250_000_000;
/// Steps that the length of one is measured by.
const TRIAL_STEPS: u64 = 1 << 24;
/// Units between two looks at the balloon.
const UNITS_PER_LOOK: u64 = 16;

pub(crate) fn measure() -> Result<(), &'static str> {
    drop(touched(to_usize(MOVED.bytes()))?);
    let steps = steps_per_unit();
    ready();
    let mut has_left = false;
    let moving = Window::run(steps, |elapsed| {
        let ballooned = app::memory().ballooned;
        has_left |= ballooned > FrameCount::ZERO;
        elapsed >= SHORTEST_NS && has_left && ballooned == FrameCount::ZERO
    });
    let quiet = Window::run(steps, |elapsed| {
        black_box(app::memory());
        elapsed >= moving.nanoseconds
    });
    moving.log(["moving_worst", "moving_p999", "moving_unit"]);
    quiet.log(["quiet_worst", "quiet_p999", "quiet_unit"]);
    Ok(())
}

/// A stretch of work.
struct Window {
    gaps: Gaps,
    nanoseconds: u64,
}

impl Window {
    /// Works until `is_over`, which is told now and then for how long that has been.
    fn run(steps: u64, mut is_over: impl FnMut(u64) -> bool) -> Self {
        let mut gaps = Gaps::new();
        let start = Instant::now();
        let mut last = start;
        loop {
            work(steps);
            let now = Instant::now();
            gaps.add(now.since(last));
            last = now;
            let elapsed = now.since(start);
            if gaps.count().is_multiple_of(UNITS_PER_LOOK) && is_over(elapsed) {
                return Self { gaps, nanoseconds: elapsed };
            }
        }
    }

    fn log(&self, [worst, p999, unit]: [&str; 3]) {
        log(worst, self.gaps.worst(), 1);
        log(p999, self.gaps.p999(), 1);
        log(unit, self.nanoseconds, self.gaps.count());
    }
}

fn steps_per_unit() -> u64 {
    let start = Instant::now();
    work(TRIAL_STEPS);
    (TRIAL_STEPS * UNIT_NS / Instant::now().since(start).max(1)).max(1)
}

/// Steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003), each of which needs the one before.
fn work(steps: u64) {
    let mut state = black_box(1_u64);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}
