//! Measures the same work of guests of the same size on a machine of that size and on far larger
//! ones, whose other memory is in the initial balloon. The guest can swap and need not, so only
//! what it computes from the machine's size can make a difference.

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Machine, Plan};
use anyhow::Result;

use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::median;

const SIZE_MIB: u64 = 128;
/// Sizes of the machines in sizes of the guest.
const RATIOS: [u64; 2] = [8, 64];
const SWAP_MIB: u64 = 512;
/// Turns of all machines.
const TURNS: usize = 5;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut same = Vec::new();
    let mut larger = RATIOS.map(|_| Vec::new());
    for _ in 0..TURNS {
        same.push(step_ns(1)?);
        for (samples, ratio) in larger.iter_mut().zip(RATIOS) {
            samples.push(step_ns(ratio)?);
        }
    }
    let same = median(same);
    let worst = larger.into_iter().map(median).fold(0.0, f64::max);
    Ok(vec![
        Row::cost("large_machine_access_ns", worst, "ns", same),
        Row::plain("large_machine_slowdown", worst / same, "").goal(1.05),
    ])
}

/// Returns the nanoseconds of one access on a machine `ratio` times as large as the guest: the
/// median of the guest's rounds.
fn step_ns(ratio: u64) -> Result<f64> {
    let plan = Plan::test_guest("bench_memory").memory_mib(ratio * SIZE_MIB).grant_mib(SIZE_MIB).swap_mib(SWAP_MIB);
    let mut guest = plan.command_line(&format!("bench=work size={SIZE_MIB}")).boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    let mut metrics = Metrics::default();
    metrics.add_guest(&guest)?;
    metrics.ns("work")
}
