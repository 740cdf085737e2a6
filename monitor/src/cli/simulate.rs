//! `aerostat simulate`: runs a trace under the scheduler and under other rules.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::report_file::NamedFile;
use crate::simulate::{self, Comparison, Trace};

#[derive(Args, Debug)]
pub(super) struct SimulateArguments {
    /// The trace file.
    trace: PathBuf,
    /// Write a plot of sizes, stalls and fairness to this file, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub(super) fn simulate(arguments: &SimulateArguments) -> Result<ExitCode, Failure> {
    let trace = Trace::load(&arguments.trace).map_err(Failure::refused)?;
    let plot = arguments.plot.as_deref().map(|path| NamedFile::create(path, "plot")).transpose()?;
    let comparison = simulate::compare(&trace);
    if let Some(file) = plot {
        write_plot(&comparison, file)?;
    }
    match simulate::write_table(&comparison, io::stdout().lock()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(Failure::broken),
    }
}

fn write_plot(comparison: &Comparison, file: NamedFile<'_>) -> Result<(), Failure> {
    match simulate::svg(comparison) {
        Ok(svg) => file.publish(svg),
        Err(why) => Err(file.failure(format_args!("can't be drawn: {why}"))),
    }
}
