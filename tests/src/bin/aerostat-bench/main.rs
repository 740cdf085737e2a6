//! `aerostat-bench`, which `cargo xtask bench` runs. Each bench measures Aerostat and, in turn with
//! it, the host's own limit for the same work, and returns rows. Absolute figures differ between
//! machines and hours; ratios to a limit of the same run differ far less.

mod balloon;
mod boot;
mod churn;
mod enforcement;
mod fleets;
mod floor;
mod footprint;
mod idle_tax;
mod mapping;
mod memory;
mod metrics;
mod native_compute;
mod overhead;
mod qemu;
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
    /// The folder with the Linux guest that the bench `qemu` compares with
    #[arg(long, value_name = "DIR")]
    linux: Option<PathBuf>,
    /// Run as the empty VMM that the boot bench compares with
    #[arg(long, hide = true)]
    empty_vmm: bool,
}

/// One bench.
struct Bench {
    name: &'static str,
    measure: fn(&Options) -> Result<Vec<Row>>,
}

const BENCHES: [Bench; 10] = [
    Bench { name: "balloon", measure: |_| balloon::measure() },
    Bench { name: "boot", measure: |_| boot::measure() },
    Bench { name: "enforcement", measure: |_| enforcement::measure() },
    Bench { name: "idle_tax", measure: |_| idle_tax::measure() },
    Bench { name: "memory", measure: |_| memory::measure() },
    Bench { name: "native_compute", measure: |_| native_compute::measure() },
    Bench { name: "qemu", measure: with_linux },
    Bench { name: "reclaim", measure: |_| reclaim::measure() },
    Bench { name: "scheduler", measure: |_| scheduler::measure() },
    Bench { name: "vmm_overhead", measure: |_| overhead::measure() },
];

fn main() -> Result<()> {
    let options = Options::parse();
    if options.empty_vmm {
        return floor::be_an_empty_vmm();
    }
    let mut rows = Vec::new();
    for bench in chosen(options.name.as_deref())? {
        eprintln!("bench: {}", bench.name);
        rows.extend((bench.measure)(&options).with_context(|| format!("bench {}", bench.name))?);
    }
    print!("{}", row::table(&rows));
    if let Some(file) = &options.json {
        fs::write(file, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn with_linux(options: &Options) -> Result<Vec<Row>> {
    qemu::measure(options.linux.as_deref().context("`cargo xtask bench qemu` passes the Linux guest's folder")?)
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
