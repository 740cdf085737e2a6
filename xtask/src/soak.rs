//! `soak`: a fleet under chaos for hours, to find what only time shows.
//!
//! The chaos is that of the tests (`aerostat_tests::chaos`), with the same checks: no byte is lost,
//! the pool is not overdrawn, no process collects descriptors, threads or memory, and nothing is
//! left behind. The program `aerostat-soak` runs it until the time is over or something fails.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::Args;

use crate::cargo::{cargo, expect_success, target_dir};
use crate::{build, tools};

const PROGRAM: &str = "aerostat-soak";

/// The options of the verb.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 8.0)]
    hours: f64,
    /// What decides which process is killed when
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn perform(options: &Options) -> Result<ExitCode> {
    tools::kvm()?;
    expect_success(&mut cargo(["build", "--release", "-p", "aerostat-tests", "--bin", PROGRAM]))?;
    let (aerostat, apps) = (build::host()?, build::apps()?);
    let mut soak = Command::new(target_dir()?.join("release").join(PROGRAM));
    soak.env("AEROSTAT_BIN", aerostat).env("AEROSTAT_APPS", apps);
    soak.arg("--hours").arg(options.hours.to_string()).arg("--seed").arg(options.seed.to_string());
    let status = soak.status()?;
    ensure!(status.success(), "the soak failed ({status})");
    Ok(ExitCode::SUCCESS)
}
