//! Measures the guest's memory paths from inside, by the guest `bench_memory`, and in turn the same
//! work on the host.

mod allocator;
mod host;
mod html;
mod index;
mod large_machine;
mod squeezed;
mod swap;

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Guest, Machine, Plan};
use anyhow::Result;

use crate::metrics::Metrics;
use crate::row::Row;

/// Turns of guest and host.
const TURNS: usize = 5;
/// Memory of the guest for copies and faults.
const FAULTS_MIB: u64 = 512;
/// Memory of the guest for the compressed pool, which never has to ask the host for more.
const COMPRESSED_POOL_MIB: u64 = 160;
const PAGE_GIB: f64 = 4096.0 / (1 << 30) as f64;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut metrics = Metrics::default();
    let html = html::Text::new()?;
    for _ in 0..TURNS {
        host::measure(&mut metrics, html.pages())?;
        metrics.add_guest(&run(&Plan::test_guest("bench_memory").memory_mib(FAULTS_MIB), "bench=copies"))?;
        metrics.add_guest(&run(&Plan::test_guest("bench_memory").memory_mib(FAULTS_MIB), "bench=faults"))?;
        let compressed_pool = Plan::test_guest("bench_memory").memory_mib(COMPRESSED_POOL_MIB);
        metrics.add_guest(&run(&compressed_pool, "bench=compressed_pool compressed_swap=128M"))?;
        metrics.add_guest(&run(&compressed_pool.disk(html.disk()), "bench=compressed_pool compressed_swap=128M"))?;
    }
    let us = |name: &str| metrics.ns(name).map(|ns| ns / 1e3);
    let gib_s = |name: &str| metrics.ns(name).map(|ns| PAGE_GIB / (ns / 1e9));
    let mut rows = vec![
        Row::cost("fault_sequential_us", us("fault_sequential_fresh")?, "us", us("host_huge_touch")?).goal(0.5),
        Row::plain("fault_sequential_reused_us", us("fault_sequential_reused")?, "us").goal(0.5),
        Row::cost("fault_sequential_small_us", us("fault_sequential_small")?, "us", us("host_small_touch")?),
        Row::cost("fault_lone_us", us("fault_lone")?, "us", us("host_lone_touch")?).goal(20.0),
        Row::cost("unmap_us", us("unmap")?, "us", us("host_unmap")?).goal(1.0),
        Row::rate("compressed_out_gib_s", gib_s("text_out")?, "GiB/s", gib_s("host_text_out")?).goal(1.0),
        Row::rate("compressed_in_gib_s", gib_s("text_in")?, "GiB/s", gib_s("host_text_in")?).goal(1.0),
        Row::rate("compressed_prose_out_gib_s", gib_s("prose_out")?, "GiB/s", gib_s("host_prose_out")?),
        Row::rate("compressed_prose_in_gib_s", gib_s("prose_in")?, "GiB/s", gib_s("host_prose_in")?),
        Row::plain("restore_lone_us", us("restore_lone")?, "us"),
        Row::rate("copy_gib_s", gib_s("copy_pages")?, "GiB/s", gib_s("host_copy_pages")?),
        Row::cost("copy_small_ns", metrics.ns("copy_small")?, "ns", metrics.ns("host_copy_small")?),
    ];
    rows.extend(swap::measure()?);
    rows.extend(squeezed::measure()?);
    rows.extend(large_machine::measure()?);
    rows.extend(index::measure()?);
    rows.extend(allocator::measure());
    Ok(rows)
}

/// Boots a guest with a command line; returns it when it has ended with success.
fn run(plan: &Plan, command_line: &str) -> Guest {
    let mut guest = plan.clone().command_line(command_line).boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest
}
