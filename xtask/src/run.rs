//! `run`: builds everything and becomes `aerostat up`, so that Ctrl-C and the exit code are the command's own.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::root;
use crate::{build, tools};

/// Paths are relative to where the user stands.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The fleet file [default: fleets/demo.toml of this repository]
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N", default_value_t = 20)]
    seconds: u64,
    /// Print lines instead of drawing a live view
    #[arg(long)]
    headless: bool,
    /// Write a report in JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep the guests' logs in this folder
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,
}

pub(crate) fn perform(options: &Options) -> Result<ExitCode> {
    tools::kvm()?;
    let aerostat = build::host()?;
    build::apps()?;
    let mut command = Command::new(&aerostat);
    command.arg("up").arg(options.fleet.clone().unwrap_or_else(|| root().join("fleets/demo.toml")));
    command.args(["--seconds", &options.seconds.to_string()]);
    if options.headless {
        command.arg("--headless");
    }
    for (name, path) in [("--report", &options.report), ("--log-dir", &options.log_dir)] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    Err(command.exec()).with_context(|| format!("starting {}", aerostat.display()))
}
