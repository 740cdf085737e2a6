//! Measures the balloon from the supervisor's side: how fast memory leaves a guest and returns, the
//! pauses of the guest's application meanwhile, and the cost of an idle guest. This process sets
//! targets, rings the doorbell and polls the register page, so times are the host's. Only the guest
//! can measure its own first touches, pauses and eviction.

mod eviction;
mod host;
mod idle;
mod mover;
mod pauses;
mod scattered;
mod whole;

use aerostat_tests::PhysicalMeter;
use anyhow::Result;

use crate::row::Row;
use crate::sample::to_f64;

/// Turns of guest and host.
const TURNS: usize = 5;
/// A guest's memory.
const MEMORY_MIB: u64 = 4096;
/// The part of it that moves.
const MOVED_MIB: u64 = 3072;
/// The goal for memory that the host does not back, which changes only accounts. It is an absolute
/// figure, as the host has no limit to measure.
const METADATA_GIB_S: f64 = 1024.0;
/// The line that a guest logs when the host may begin.
const READY: &str = "bench balloon: ready";

pub(crate) fn measure() -> Result<Vec<Row>> {
    let meter = PhysicalMeter::enter();
    if !meter.is_exact() {
        eprintln!(
            "bench: no memory control group can be made; judging by the host's free memory, which needs a quiet host"
        );
    }
    let mut rows = whole::measure(&meter)?;
    rows.extend(scattered::measure(&meter)?);
    rows.extend(pauses::measure()?);
    rows.extend(eviction::measure()?);
    rows.extend(idle::measure()?);
    Ok(rows)
}

/// Returns the GiB per second of `mib` MiB in so many seconds.
fn gib_s(mib: u64, seconds: f64) -> f64 {
    to_f64(mib) / 1024.0 / seconds
}
