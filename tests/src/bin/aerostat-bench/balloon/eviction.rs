//! Measures inflating of memory that is full of data: pages have to be compressed or written to the
//! swap disk first.

use std::thread;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Machine, Plan};
use anyhow::Result;

use super::mover::Mover;
use super::{TURNS, gib_s};
use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::median;

const MEMORY_MIB: u64 = 1024;
const SWAP_MIB: u64 = 1024;
/// Memory that leaves first, of the 64 MiB that the guest leaves free. Nothing is free then but
/// what the kernel keeps.
const FREE_MIB: u64 = 56;
/// Memory that is evicted: as much as the guest evicts without its balloon.
const EVICTED_MIB: u64 = 256;
/// The time after which the background reclaimer has nothing to do.
const SETTLED: Duration = Duration::from_millis(500);
const PAGES_PER_MIB: f64 = 256.0;

pub(super) fn measure() -> Result<Vec<Row>> {
    let plan = Plan::test_guest("bench_balloon").memory_mib(MEMORY_MIB).swap_mib(SWAP_MIB);
    let mut rates = Vec::new();
    let mut metrics = Metrics::default();
    for _ in 0..TURNS {
        let guest = Mover::boot_plan(&plan, "evicted");
        let small = MEMORY_MIB - FREE_MIB;
        guest.resize(small)?;
        thread::sleep(SETTLED);
        rates.push(gib_s(EVICTED_MIB, guest.resize(small - EVICTED_MIB)?));
        drop(guest);

        let mut guest = plan.clone().command_line("bench=reclaimed").boot(Machine::Kvm);
        guest.expect_exit(GuestExit::Success);
        metrics.add_guest(&guest)?;
    }
    let reclaim = gib_s(1, metrics.ns("reclaimed")? * PAGES_PER_MIB / 1e9);
    Ok(vec![Row::rate("inflate_evict", median(rates), "GiB/s", reclaim).goal_of_limit(0.8)])
}
