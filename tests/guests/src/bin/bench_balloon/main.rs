//! Uses memory in the ways for which the bench `balloon` measures, from the host, how it inflates
//! and deflates.
//!
//! The command line names one part: `bench=idle`, `bench=touched`, `bench=scattered`,
//! `bench=pauses`, `bench=pauses-compacting`, or, with a swap disk, `bench=evicted`,
//! `bench=reclaimed` or `bench=pauses-evicting`. The guest logs `ready` when the host may begin.
//! Each figure is a line `figure NAME: N ns for M`.

#![no_std]
#![no_main]

extern crate alloc;

mod eviction;
mod pauses;
mod scattered;
mod touched;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const PAGE_BYTES: usize = 4096;
/// The memory that moves in most parts.
const MOVED: FrameCount = FrameCount::from_mib(3072);
/// How often the guest reads its size: too seldom to disturb the measurement.
const SAMPLE_MS: u64 = 100;

fn main() -> Outcome {
    let part = app::arguments().split_whitespace().find_map(|word| word.strip_prefix("bench="));
    let result = match part {
        Some("idle") => stay(),
        Some("touched") => touched::measure(),
        Some("scattered") => scattered::prepare(),
        Some("pauses") => pauses::measure(),
        Some("pauses-evicting") => pauses::measure_evicting(),
        Some("pauses-compacting") => pauses::measure_compacting(),
        Some("evicted") => eviction::prepare(),
        Some("reclaimed") => eviction::measure(),
        _ => Err("name a part, such as bench=idle"),
    };
    match result {
        Ok(()) => Outcome::Success,
        Err(what) => {
            log::error!("bench balloon: {what}");
            Outcome::Failure
        }
    }
}

/// Sleeps until the host ends the guest.
fn stay() -> ! {
    ready();
    loop {
        app::sleep(u64::from(u32::MAX));
    }
}

fn ready() {
    log::info!("bench balloon: ready");
}

/// Allocates memory and touches each page once.
fn touched(bytes: usize) -> Result<Mapping, &'static str> {
    let mut memory = Mapping::anonymous(bytes).map_err(|OutOfMemory| "no memory")?;
    touch(&mut memory);
    Ok(memory)
}

fn touch(memory: &mut [u8]) {
    for at in (0..memory.len()).step_by(PAGE_BYTES) {
        *core::hint::black_box(&mut memory[at]) = 1;
    }
}

fn wait_until(is_reached: impl Fn(FrameCount) -> bool) {
    while !is_reached(app::memory().ballooned) {
        app::sleep(SAMPLE_MS);
    }
}

fn log(name: &str, nanoseconds: u64, count: u64) {
    log::info!("figure {name}: {nanoseconds} ns for {count}");
}
