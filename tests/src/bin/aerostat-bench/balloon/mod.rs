//! The balloon, seen by a supervisor: how fast memory leaves a guest and returns, what the guest's application notices of it, and what
//! it costs while nothing happens. This process sets targets, rings the doorbell and watches the register page, so times are the
//! host's, except for what only the guest can see: its own first touches, its own pauses, its own eviction.

mod eviction;
mod idle;
mod mover;
mod pauses;
mod scattered;
mod whole;

use anyhow::Result;

use crate::row::Row;

/// Turns of guest and host.
const TURNS: usize = 5;
/// A guest's memory, and what moves of it.
const MEMORY_MIB: u64 = 4096;
const MOVED_MIB: u64 = 3072;
/// What a guest logs when the host may begin.
const READY: &str = "bench balloon: ready";

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = whole::measure()?;
    rows.extend(scattered::measure()?);
    rows.extend(pauses::measure()?);
    rows.extend(eviction::measure()?);
    rows.extend(idle::measure()?);
    Ok(rows)
}

/// GiB a second of `mib` MiB in so many seconds.
#[expect(clippy::cast_precision_loss, reason = "memory sizes are far below 2^53 MiB")]
fn gib_s(mib: u64, seconds: f64) -> f64 {
    mib as f64 / 1024.0 / seconds
}
