//! The guest's memory paths, measured from inside by the guest `bench_memory`, and in turn the host's price for the same work.

mod allocator;
mod host;
mod html;
mod index;
mod squeezed;
mod swap;

use std::collections::BTreeMap;

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Guest, Machine, Plan};
use anyhow::{Context, Result};

use crate::row::Row;
use crate::sample::median;

/// Turns of guest and host.
const TURNS: usize = 5;
/// Guest memory: for faults, and for a tier that never has to ask the host.
const FAULTS_MIB: u64 = 512;
const TIER_MIB: u64 = 160;
const PAGE_GIB: f64 = 4096.0 / (1 << 30) as f64;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut samples = Samples::default();
    let html = html::Text::new()?;
    for _ in 0..TURNS {
        host::measure(&mut samples, html.pages())?;
        samples.add_guest(&run(&Plan::test_guest("bench_memory").memory_mib(FAULTS_MIB), "bench=copies"))?;
        samples.add_guest(&run(&Plan::test_guest("bench_memory").memory_mib(FAULTS_MIB), "bench=faults"))?;
        let tier = Plan::test_guest("bench_memory").memory_mib(TIER_MIB);
        samples.add_guest(&run(&tier, "bench=tier compressed_swap=128M"))?;
        samples.add_guest(&run(&tier.disk(html.disk()), "bench=tier compressed_swap=128M"))?;
    }
    let us = |name: &str| samples.ns(name).map(|ns| ns / 1e3);
    let gib_s = |name: &str| samples.ns(name).map(|ns| PAGE_GIB / (ns / 1e9));
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
        Row::cost("copy_small_ns", samples.ns("copy_small")?, "ns", samples.ns("host_copy_small")?),
    ];
    rows.extend(swap::measure()?);
    rows.extend(squeezed::measure()?);
    rows.extend(index::measure()?);
    rows.extend(allocator::measure());
    Ok(rows)
}

/// Boots a guest with a command line and returns it when it has done its work.
fn run(plan: &Plan, command_line: &str) -> Guest {
    let mut guest = plan.clone().command_line(command_line).boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest
}

/// Nanoseconds for one of whatever a figure counts, sample by sample.
#[derive(Debug, Default)]
struct Samples(BTreeMap<String, Vec<f64>>);

impl Samples {
    fn add(&mut self, name: &str, nanoseconds: f64) {
        self.0.entry(name.to_owned()).or_default().push(nanoseconds);
    }

    /// Adds the figures that a guest has logged.
    fn add_guest(&mut self, guest: &Guest) -> Result<()> {
        for line in guest.log().lines() {
            if let Some((_, figure)) = line.split_once("figure ") {
                let (name, each) = parse(figure).with_context(|| format!("no figure: {figure:?}"))?;
                self.add(name, each);
            }
        }
        Ok(())
    }

    fn ns(&self, name: &str) -> Result<f64> {
        self.0.get(name).map(|samples| median(samples.clone())).with_context(|| format!("nobody has measured {name}"))
    }
}

/// Name and nanoseconds for one in `NAME: N ns for M`.
fn parse(figure: &str) -> Option<(&str, f64)> {
    let (name, rest) = figure.trim_end().split_once(": ")?;
    let (nanoseconds, count) = rest.split_once(" ns for ")?;
    let count: f64 = count.parse().ok().filter(|count| *count > 0.0)?;
    Some((name, nanoseconds.parse::<f64>().ok()? / count))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_figure_is_for_one() {
        assert_eq!(parse("unmap: 600 ns for 4\n"), Some(("unmap", 150.0)));
        assert_eq!(parse("unmap: 600 ns for 0"), None);
        assert_eq!(parse("unmap"), None);
    }
}
