//! The same work in a guest that a balloon has squeezed to a size, and in one that was started at
//! that size: both fit their working set without evicting anything, so what differs is what the
//! squeeze has left behind: split mappings, scattered frames.

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Guest, Machine, Plan};
use anyhow::Result;

use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::median;

const LARGE_MIB: u64 = 512;
const SMALL_MIB: u64 = 128;
/// Pairs of guests.
const TURNS: usize = 9;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut squeezed = Vec::new();
    let mut small = Vec::new();
    for turn in 0..TURNS {
        // Who goes first changes, as what the one leaves in the host's caches and memory meets the
        // other.
        for is_squeezed in [turn % 2 == 0, turn % 2 != 0] {
            let step_ns = step_ns(&work(if is_squeezed { LARGE_MIB } else { SMALL_MIB }))?;
            if is_squeezed { squeezed.push(step_ns) } else { small.push(step_ns) }
        }
    }
    let losses = squeezed.iter().zip(&small).map(|(squeezed, small)| (squeezed / small - 1.0) * 100.0).collect();
    Ok(vec![
        Row::cost("squeezed_access_ns", median(squeezed), "ns", median(small)),
        Row::plain("squeezed_percent", median(losses), "%").goal(1.4),
    ])
}

/// A guest of `mib` MiB that has done the work at [`SMALL_MIB`].
fn work(mib: u64) -> Guest {
    let command_line = format!("bench=work size={SMALL_MIB} compressed_swap=64M");
    let mut guest = Plan::test_guest("bench_memory").memory_mib(mib).command_line(&command_line).boot(Machine::Kvm);
    guest.wait_for_line("work: ready");
    guest.set_target_mib(SMALL_MIB);
    guest.expect_exit(GuestExit::Success);
    guest
}

/// Nanoseconds of one access: the median of the guest's rounds.
fn step_ns(guest: &Guest) -> Result<f64> {
    let mut metrics = Metrics::default();
    metrics.add_guest(guest)?;
    metrics.ns("work")
}
