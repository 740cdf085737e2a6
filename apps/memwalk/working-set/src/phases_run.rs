//! Carries a plan out: resizes the working set and walks it all the time.

use core::fmt::Write as _;

use aerostat_abi::text::Text;
use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant};

use crate::{Phase, Plan, WorkingSet};

/// The pause between two walks over the working set, as a service has other work, too.
const REST_MS: u64 = 5;

/// Goes through the phases of `plan`, for ever if it repeats. Returns the empty working set with
/// its counts. Calls `needs` after each attempt to grow with the number of missing frames, and with
/// zero at the end of a phase.
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

/// Resizes the working set to the phase's size and walks its active part until the phase ends.
fn run_phase(set: &mut WorkingSet, phase: &Phase, needs: &mut impl FnMut(FrameCount)) {
    let end = Instant::now().after(phase.duration_ms * 1_000_000);
    let (bytes, active) = (phase.bytes >> 20, phase.active_bytes >> 20);
    log::info!("{active} MiB in use of {bytes} MiB for {} ms", phase.duration_ms);
    let doing = if phase.active_bytes < phase.bytes { "idling on most" } else { "walking" };
    let mut is_short = false;
    while Instant::now() < end {
        if set.bytes() < phase.bytes {
            // Growing may wait for memory, and the report must not be about the last phase
            // meanwhile.
            tell_size(set, "growing", phase.bytes, is_short);
        }
        is_short = !set.resize(phase.bytes);
        let missing = if is_short { phase.bytes.saturating_sub(set.bytes()) } else { 0 };
        needs(FrameCount::from_bytes_ceil(missing as u64));
        tell_size(set, doing, phase.bytes, is_short);
        set.walk(phase.active_bytes, end);
        app::sleep(REST_MS);
    }
    needs(FrameCount::ZERO);
}

/// Reports what the application does with how much of the `wanted` bytes, and whether the last
/// attempt to grow was refused.
fn tell_size(set: &WorkingSet, doing: &str, wanted: usize, is_short: bool) {
    let mut text = Text::EMPTY;
    let short = if is_short { ", short of memory" } else { "" };
    // Text that does not fit is dropped without an error.
    let _ = write!(text, "{doing} {} of {} MiB{short}", set.bytes() >> 20, wanted >> 20);
    tell(set, text.as_str());
}

fn tell(set: &WorkingSet, doing: &str) {
    app::report(set.verified_bytes(), set.errors(), doing);
}
