//! The comparison as a table.

use std::io::{self, Write};
use std::time::Duration;

use super::run::{Comparison, RunResult};

/// The rule that each guest is compared with: its part of the pool for itself, without any balloon.
const BASE: &str = "equal parts";

/// Writes one row for each rule.
///
/// # Errors
///
/// What writing to `output` failed with.
pub fn write_table(comparison: &Comparison, mut output: impl Write) -> io::Result<()> {
    let base = comparison.runs.iter().find(|run| run.rule == BASE);
    writeln!(
        output,
        "{:<24}  {:>12}  {:>8}  {:>11}  {:>7}  {:>18}  {:>14}  {:>10}",
        "rule", "stall, all", "of time", "worst guest", "work", "worse than parts", "changes/min", "moved"
    )?;
    for run in &comparison.runs {
        writeln!(
            output,
            "{:<24}  {:>12}  {:>6.2} %  {:>11}  {:>7.3}  {:>18}  {:>14.2}  {:>10}",
            run.rule,
            seconds(run.total_stall()),
            percent_of_time(run.total_stall(), comparison),
            seconds(run.worst_stall()),
            comparison.work_of(run),
            worse_than(run, base),
            changes_per_minute(run, comparison),
            run.moved.to_string(),
        )?;
    }
    writeln!(
        output,
        "{:<24}  {:>12}  {:>6.2} %",
        "oracle (a bound)",
        seconds(comparison.least_stall),
        percent_of_time(comparison.least_stall, comparison)
    )?;
    write_groups(comparison, output)
}

/// Writes the stall of each group's guests, on average, in one column for each rule.
fn write_groups(comparison: &Comparison, mut output: impl Write) -> io::Result<()> {
    write!(output, "\n{:<24}", "stall of a guest")?;
    for run in &comparison.runs {
        write!(output, "  {:>22}", run.rule)?;
    }
    let mut first = 0;
    for (name, count) in &comparison.groups {
        write!(output, "\n{name:<24}")?;
        for run in &comparison.runs {
            let stall: Duration = run.stalled.iter().skip(first).take(*count).sum();
            write!(output, "  {:>22}", seconds(stall.div_f64(*count as f64)))?;
        }
        first += count;
    }
    writeln!(output)
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}

fn percent_of_time(stall: Duration, comparison: &Comparison) -> f64 {
    100.0 * stall.as_secs_f64() / comparison.all_time()
}

/// Returns how many guests stood still longer than under the base, and the largest difference.
fn worse_than(run: &RunResult, base: Option<&RunResult>) -> String {
    let Some(base) = base.filter(|base| base.rule != run.rule) else { return "-".to_owned() };
    let losses = run.stalled.iter().zip(&base.stalled).map(|(stall, base)| stall.saturating_sub(*base));
    let losses: Vec<Duration> = losses.filter(|loss| !loss.is_zero()).collect();
    match losses.iter().max() {
        Some(most) => format!("{} by <= {}", losses.len(), seconds(*most)),
        None => "none".to_owned(),
    }
}

fn changes_per_minute(run: &RunResult, comparison: &Comparison) -> f64 {
    run.changes as f64 * 60.0 / comparison.all_time()
}
