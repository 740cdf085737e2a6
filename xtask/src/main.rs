//! `cargo xtask VERB`: builds, runs, tests, checks and measures Aerostat, one file per verb.
//!
//! Each verb first asks [`tools`] for what it needs and for nothing else, so a machine that has
//! only `rustup` can use every verb that needs no more.

mod bench;
mod build;
mod cargo;
mod check;
mod cpio;
mod fleet_file;
mod fuzz;
mod linux_guest;
mod run;
mod soak;
mod source;
mod test;
mod text;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Builds, runs, tests, checks and measures Aerostat.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Build the `aerostat` command and all guest images.
    Build,
    /// Build everything and run a fleet of guests, under QEMU where KVM can't be used.
    Run(run::Options),
    /// Run the host tests, then boot the test guests under KVM and under QEMU.
    Test(test::Options),
    /// Run a fleet for hours while its processes are killed, stopped and throttled at random.
    Soak(soak::Options),
    /// Run every static check, then list all that failed.
    Check,
    /// Measure, against limits measured in the same run.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match perform(Verb::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Build => build::perform(),
        Verb::Run(options) => run::perform(&options),
        Verb::Test(options) => test::perform(&options),
        Verb::Soak(options) => soak::perform(&options),
        Verb::Check => check::perform(),
        Verb::Bench(options) => bench::perform(&options),
    }
}
