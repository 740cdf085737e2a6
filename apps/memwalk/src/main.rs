//! A service whose working set has tides: it grows and shrinks in phases, is written with known patterns, and every byte that is
//! read back is verified.
//!
//! `phases=64M:3s,320M:4s,64M:3s repeat`: working set and duration of each phase; with `repeat` for ever, else once. See [`working_set`].
#![no_std]
#![no_main]

extern crate alloc;

use aerostat_guest::app::{self, Instant, Outcome};
use alloc::format;
use working_set::{Phase, Plan, WorkingSet};

aerostat_guest::app!(main);

/// Between two passes over the working set: a service has other things to do.
const REST_MS: u64 = 5;

fn main() -> Outcome {
    let plan = match Plan::parse(app::words()) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("{error}");
            return Outcome::Failure;
        }
    };
    let mut set = WorkingSet::default();
    loop {
        for phase in plan.phases() {
            run_phase(&mut set, phase);
        }
        if !plan.repeats() {
            break;
        }
    }
    set.resize(0);
    tell(&set, "done");
    log::info!("verified {} bytes, {} errors", set.verified_bytes(), set.errors());
    if set.errors() == 0 { Outcome::Success } else { Outcome::Failure }
}

/// Brings the working set to the phase's size and walks it until the phase is over.
fn run_phase(set: &mut WorkingSet, phase: &Phase) {
    let end = Instant::now().after(phase.duration_ms * 1_000_000);
    log::info!("working set {} MiB for {} ms", phase.bytes >> 20, phase.duration_ms);
    while Instant::now() < end {
        let has_size = set.resize(phase.bytes);
        let short = if has_size { "" } else { ", short of memory" };
        tell(set, &format!("walking {} of {} MiB{short}", set.bytes() >> 20, phase.bytes >> 20));
        set.walk(end);
        app::sleep(REST_MS);
    }
}

fn tell(set: &WorkingSet, doing: &str) {
    app::report(set.verified_bytes(), set.errors(), doing);
}
