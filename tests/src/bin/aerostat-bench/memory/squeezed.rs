//! Measures the same work in a guest that its balloon has squeezed to a size and in one that was
//! started at that size. Both have memory for their working set without eviction, so only split
//! mappings and scattered frames, which the squeeze leaves, can make a difference.

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
        // The order alternates, as the first guest leaves traces in the host's caches and memory.
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

/// Boots a guest of `mib` MiB, squeezes it to [`SMALL_MIB`] and waits until it has done its work.
fn work(mib: u64) -> Guest {
    let command_line = format!("bench=work size={SMALL_MIB} compressed_swap=64M");
    let mut guest = Plan::test_guest("bench_memory").memory_mib(mib).command_line(&command_line).boot(Machine::Kvm);
    guest.wait_for_line("work: ready");
    guest.set_target_mib(SMALL_MIB);
    guest.expect_exit(GuestExit::Success);
    guest
}

/// Returns the nanoseconds of one access: the median of the guest's rounds.
fn step_ns(guest: &Guest) -> Result<f64> {
    let mut metrics = Metrics::default();
    metrics.add_guest(guest)?;
    metrics.ns("work")
}
