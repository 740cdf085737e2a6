//! `aerostat simulate`: runs a trace under the scheduler and under other rules.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::simulate::{self, Trace};

#[derive(Args, Debug)]
pub(super) struct SimulateArguments {
    /// The trace file.
    trace: PathBuf,
}

pub(super) fn simulate(arguments: &SimulateArguments) -> Result<ExitCode, Failure> {
    let trace = Trace::load(&arguments.trace).map_err(Failure::refused)?;
    let comparison = simulate::compare(&trace);
    simulate::write_table(&comparison, io::stdout().lock()).map_err(Failure::broken)?;
    Ok(ExitCode::SUCCESS)
}
