//! Works in units of 10 us while memory leaves and returns, while it is evicted, or while it is
//! compacted, and then while nothing moves. Records the pauses between the ends of units.

use core::hint::black_box;

use aerostat_abi::units::to_usize;
use aerostat_guest::app::{self, Instant};

use crate::{MOVED, eviction, log, ready, touched};

#[path = "../../gaps.rs"]
mod gaps;

#[path = "../../pieces.rs"]
mod pieces;

use gaps::Gaps;
use pieces::{PAGE_WORDS, are_right, reserved, scattered};

/// The length of a unit of work.
const UNIT_NS: u64 = 10_000;
/// The length of a window of work. In that time the host notices that the guest is ready and moves
/// memory. The guest does not read its size meanwhile.
const WINDOW_NS: u64 = 500_000_000;
/// Memory in use that could have huge pages, once pages have been moved out of huge frames.
const BUSY_WORDS: usize = (96 << 20) / 8;
/// Words of a huge page.
const HUGE_WORDS: usize = (2 << 20) / 8;
/// The length of a window in which memory has to be evicted or compacted.
const LONG_WINDOW_NS: u64 = 5_000_000_000;
/// Steps that measure the length of one step.
const TRIAL_STEPS: u64 = 1 << 24;

pub(crate) fn measure() -> Result<(), &'static str> {
    drop(touched(to_usize(MOVED.bytes()))?);
    let steps = steps_per_unit();
    ready();
    let moving = Window::run(WINDOW_NS, || work(steps));
    let quiet = Window::run(WINDOW_NS, || work(steps));
    moving.log(["moving_worst", "moving_p999", "moving_unit"]);
    quiet.log(["quiet_worst", "quiet_p999", "quiet_unit"]);
    Ok(())
}

/// Measures while the host lowers the target of a guest that is full of data.
pub(crate) fn measure_evicting() -> Result<(), &'static str> {
    let _data = eviction::data()?;
    let steps = steps_per_unit();
    ready();
    let evicting = Window::run(LONG_WINDOW_NS, || work(steps));
    let quiet = Window::run(WINDOW_NS, || work(steps));
    evicting.log(["evicting_worst", "evicting_p999", "evicting_unit"]);
    quiet.log(["evicted_worst", "evicted_p999", "evicted_unit"]);
    Ok(())
}

/// Measures while pages are moved out of huge frames and tables become huge pages, in a guest of
/// which every huge frame is used a little.
pub(crate) fn measure_compacting() -> Result<(), &'static str> {
    let pieces = scattered()?;
    let mut busy = reserved(BUSY_WORDS)?;
    busy.resize(BUSY_WORDS, 0);
    let steps = steps_per_unit();
    ready();
    let before = app::memory();
    let mut place = 0;
    let compacting = Window::run(LONG_WINDOW_NS, || {
        work(steps);
        busy[place] += 1; // tables that are not in use are not collapsed
        place = if place + HUGE_WORDS < BUSY_WORDS { place + HUGE_WORDS } else { (place + PAGE_WORDS) % HUGE_WORDS };
    });
    let after = app::memory();
    if after.collapses - before.collapses < (BUSY_WORDS / HUGE_WORDS / 2) as u64
        || after.moved_pages == before.moved_pages
    {
        return Err("less than half of the tables became huge pages");
    }
    if !are_right(&pieces) {
        return Err("a page that was moved has changed");
    }
    drop((pieces, busy));
    let quiet = Window::run(WINDOW_NS, || work(steps));
    compacting.log(["compacting_worst", "compacting_p999", "compacting_unit"]);
    quiet.log(["compacted_worst", "compacted_p999", "compacted_unit"]);
    Ok(())
}

/// A window of work.
struct Window {
    gaps: Gaps,
    nanoseconds: u64,
}

impl Window {
    fn run(duration_ns: u64, mut unit: impl FnMut()) -> Self {
        let mut gaps = Gaps::new();
        let start = Instant::now();
        let mut last = start;
        while last.since(start) < duration_ns {
            unit();
            let now = Instant::now();
            gaps.add(now.since(last));
            last = now;
        }
        Self { gaps, nanoseconds: last.since(start) }
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

/// Runs steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003), each of which needs the one before.
fn work(steps: u64) {
    let mut state = black_box(1_u64);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}
