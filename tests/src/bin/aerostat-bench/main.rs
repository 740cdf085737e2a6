//! `aerostat-bench`, which `cargo xtask bench` runs. Each bench measures Aerostat and, in turn with
//! it, the host's own limit for the same work, and returns rows. Absolute figures differ between
//! machines and hours; ratios to a limit of the same run differ far less.

mod balloon;
mod boot;
mod churn;
mod fleets;
mod floor;
mod footprint;
mod idle_tax;
mod mapping;
mod memory;
mod metrics;
mod native_compute;
mod overhead;
mod reclaim;
mod row;
mod sample;
mod scheduler;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;

use crate::row::Row;

/// Measures Aerostat against limits that the same run measures.
#[derive(Debug, Parser)]
struct Options {
    /// Run only this bench; `list` names them all
    name: Option<String>,
    /// Write the rows as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure the Linux guest in this folder too
    #[arg(long, value_name = "DIR")]
    peer: Option<PathBuf>,
    /// Run as the empty VMM that the boot bench compares with
    #[arg(long, hide = true)]
    empty_vmm: bool,
}

/// One bench.
struct Bench {
    name: &'static str,
    measure: fn() -> Result<Vec<Row>>,
}

const BENCHES: [Bench; 8] = [
    Bench { name: "balloon", measure: balloon::measure },
    Bench { name: "boot", measure: boot::measure },
    Bench { name: "idle_tax", measure: idle_tax::measure },
    Bench { name: "memory", measure: memory::measure },
    Bench { name: "native_compute", measure: native_compute::measure },
    Bench { name: "reclaim", measure: reclaim::measure },
    Bench { name: "scheduler", measure: scheduler::measure },
    Bench { name: "vmm_overhead", measure: overhead::measure },
];

fn main() -> Result<()> {
    let options = Options::parse();
    if options.empty_vmm {
        return floor::be_an_empty_vmm();
    }
    let mut rows = Vec::new();
    for bench in chosen(options.name.as_deref())? {
        eprintln!("bench: {}", bench.name);
        rows.extend((bench.measure)().with_context(|| format!("bench {}", bench.name))?);
    }
    if let Some(folder) = &options.peer {
        eprintln!("bench: the peer");
        rows.extend(balloon::peer::measure(folder).context("the peer")?);
    }
    print!("{}", row::table(&rows));
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// Returns the bench of this name, or all of them.
fn chosen(name: Option<&str>) -> Result<&'static [Bench]> {
    let Some(name) = name else { return Ok(&BENCHES) };
    if let Some(place) = BENCHES.iter().position(|bench| bench.name == name) {
        return Ok(&BENCHES[place..=place]);
    }
    let known = BENCHES.map(|bench| bench.name).join(", ");
    if name == "list" {
        println!("{known}");
        return Ok(&[]);
    }
    bail!("there is no bench {name:?}; there are: {known}")
}
