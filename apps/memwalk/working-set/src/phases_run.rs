//! A plan carried out: the working set grows and shrinks, and is walked all the time.

use core::fmt::Write as _;

use aerostat_abi::text::Text;
use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant};

use crate::{Phase, Plan, WorkingSet};

/// Between two passes over the working set: a service has other things to do.
const REST_MS: u64 = 5;

/// Goes through the phases of `plan`, for ever if it repeats, and lets the working set go in the
/// end; returns that for what it has verified. Tells `needs` after each attempt to grow how many
/// frames are missing, and when none are wanted any more.
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
    let mut is_short = false;
    while Instant::now() < end {
        if set.bytes() < phase.bytes {
            // Growing may wait for memory, and what is reported meanwhile must not be about the
            // last phase.
            tell_size(set, "growing", phase.bytes, is_short);
        }
        is_short = !set.resize(phase.bytes);
        let missing = if is_short { phase.bytes.saturating_sub(set.bytes()) } else { 0 };
        needs(FrameCount::from_bytes_ceil(missing as u64));
        tell_size(set, "walking", phase.bytes, is_short);
        set.walk(end);
        app::sleep(REST_MS);
    }
    needs(FrameCount::ZERO);
}

/// Reports what is done with how much of the `wished` bytes, and whether memory lacked for the rest
/// when it was last tried.
fn tell_size(set: &WorkingSet, doing: &str, wished: usize, is_short: bool) {
    let mut text = Text::EMPTY;
    let short = if is_short { ", short of memory" } else { "" };
    // What does not fit is dropped without an error.
    let _ = write!(text, "{doing} {} of {} MiB{short}", set.bytes() >> 20, wished >> 20);
    tell(set, text.as_str());
}

fn tell(set: &WorkingSet, doing: &str) {
    app::report(set.verified_bytes(), set.errors(), doing);
}
