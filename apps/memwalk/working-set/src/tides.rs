//! A plan carried out: the working set grows and shrinks, and is walked all the time.

use core::fmt::Write as _;

use aerostat_abi::text::Text;
use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant};

use crate::{Phase, Plan, WorkingSet};

/// Between two passes over the working set: a service has other things to do.
const REST_MS: u64 = 5;

/// Goes through the phases of `plan`, for ever if it repeats, and lets the working set go in the end; returns that for what it has verified. Tells
/// `needs` after each attempt to grow how many frames are missing, and when none are wanted any more.
pub fn run(plan: &Plan, mut needs: impl FnMut(FrameCount)) -> WorkingSet {
    let mut set = WorkingSet::default();
    loop {
        for phase in plan.phases() {
            run_phase(&mut set, phase, &mut needs);
        }
        if !plan.repeats() {
            break;
        }
    }
    set.resize(0);
    tell(&set, "done");
    set
}

/// Brings the working set to the phase's size and walks it until the phase is over.
fn run_phase(set: &mut WorkingSet, phase: &Phase, needs: &mut impl FnMut(FrameCount)) {
    let end = Instant::now().after(phase.duration_ms * 1_000_000);
    log::info!("working set {} MiB for {} ms", phase.bytes >> 20, phase.duration_ms);
    while Instant::now() < end {
        let has_size = set.resize(phase.bytes);
        let missing = if has_size { 0 } else { phase.bytes.saturating_sub(set.bytes()) };
        needs(FrameCount::from_bytes_ceil(missing as u64));
        let mut doing = Text::EMPTY;
        let short = if has_size { "" } else { ", short of memory" };
        // What does not fit is dropped without an error.
        let _ = write!(doing, "walking {} of {} MiB{short}", set.bytes() >> 20, phase.bytes >> 20);
        tell(set, doing.as_str());
        set.walk(end);
        app::sleep(REST_MS);
    }
    needs(FrameCount::ZERO);
}

fn tell(set: &WorkingSet, doing: &str) {
    app::report(set.verified_bytes(), set.errors(), doing);
}
