//! Simulated fleets: the real scheduler, simulated guests, simulated time.
//!
//! `aerostat simulate TRACE.toml` runs a fleet of thousands of guests in seconds and compares the
//! scheduler with what other systems do ([`rules`]) and with the best that any rule could do
//! (`oracle.rs`). Nothing here reads a clock or does I/O besides reading the trace.
//!
//! *A run* (`run.rs`) goes in ticks. In each tick every guest (`guest.rs`) follows its target as
//! far as it can and does its work as far as its memory allows; then the rule decides on new
//! targets. What a guest needs at a moment comes from the trace (`trace.rs`, `demand.rs`). The
//! measure is *stall*: the time in which a guest could not work for lack of memory.

mod demand;
mod guest;
mod oracle;
mod plot;
pub mod rules;
mod run;
mod table;
mod timeline;
mod trace;

use aerostat_abi::units::FrameCount;

pub use self::plot::svg;
pub use self::run::{Comparison, RunResult, compare};
pub use self::table::write_table;
pub use self::timeline::{Snapshot, Timeline};
pub use self::trace::{Trace, TraceError};

/// Returns `factor` times `count`, rounded down; 0 for a negative factor.
#[allow(clippy::cast_possible_truncation, reason = "a cast from a float saturates, and rounds towards 0")]
fn scaled(count: FrameCount, factor: f64) -> FrameCount {
    FrameCount((count.0 as f64 * factor) as u64)
}
