//! `aerostat-soak`, which `cargo xtask soak` runs: chaos for hours, with checks for what
//! processes never give back.

use std::time::Duration;

use aerostat_tests::chaos::{Length, run};
use clap::Parser;

/// Runs a fleet under chaos for hours.
#[derive(Debug, Parser)]
struct Options {
    /// How long
    #[arg(long, default_value_t = 8.0)]
    hours: f64,
    /// What decides all steps
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let Options { hours, seed } = Options::parse();
    run(seed, Length::Time(Duration::from_secs_f64(hours.max(0.0) * 3600.0)));
}
