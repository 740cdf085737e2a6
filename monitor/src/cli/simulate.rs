//! `aerostat simulate`: runs a trace under the scheduler and under other rules.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use super::report_file::ReportFile;
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
    let plot = arguments.plot.as_deref().map(plot_file).transpose()?;
    let comparison = simulate::compare(&trace);
    if let Some((path, file)) = plot {
        write_plot(&comparison, file).map_err(|why| Failure::broken(format!("{}: the plot {why}", path.display())))?;
    }
    match simulate::write_table(&comparison, io::stdout().lock()) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written.map(|()| ExitCode::SUCCESS).map_err(Failure::broken),
    }
}

fn plot_file(path: &Path) -> Result<(&Path, ReportFile), Failure> {
    let file = ReportFile::create(path);
    let file = file.map_err(|error| Failure::refused(format!("{}: the plot {error}", path.display())))?;
    Ok((path, file))
}

fn write_plot(comparison: &Comparison, file: ReportFile) -> Result<(), String> {
    let svg = simulate::svg(comparison).map_err(|why| format!("can't be drawn: {why}"))?;
    file.publish(|file| file.write_all(svg.as_bytes())).map_err(|error| format!("can't be written: {error}"))
}
