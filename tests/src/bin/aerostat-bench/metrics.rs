//! Figures that test guests log, as lines `figure NAME: N ns for M`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aerostat_tests::Guest;
use anyhow::{Context, Result, ensure};

use crate::sample::median;

/// Figures of guest and host by name: for each sample, the nanoseconds of one operation.
#[derive(Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, Vec<f64>>);

impl Metrics {
    /// Adds a sample of the figure `name`.
    pub(crate) fn add(&mut self, name: &str, nanoseconds: f64) {
        self.0.entry(name.to_owned()).or_default().push(nanoseconds);
    }

    /// Adds the figures that a guest has logged.
    pub(crate) fn add_guest(&mut self, guest: &Guest) -> Result<()> {
        self.add_log(&guest.log())
    }

    /// Adds the figures in the log of a guest.
    pub(crate) fn add_log(&mut self, log: &str) -> Result<()> {
        for line in log.lines() {
            if let Some((_, figure)) = line.split_once("figure ") {
                let (name, each) = parse(figure).with_context(|| format!("no figure: {figure:?}"))?;
                self.add(name, each);
            }
        }
        Ok(())
    }

    /// Returns the median of a figure.
    pub(crate) fn ns(&self, name: &str) -> Result<f64> {
        self.0.get(name).map(|samples| median(samples.clone())).with_context(|| format!("{name} was not measured"))
    }
}

/// Waits until the log of a guest contains `text`.
pub(crate) fn wait_for_line(log: &Path, text: &str, patience: Duration) -> Result<()> {
    let start = Instant::now();
    while !fs::read_to_string(log).unwrap_or_default().contains(text) {
        ensure!(start.elapsed() < patience, "{} has no line {text:?}", log.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Returns the name and the nanoseconds of one operation in `NAME: N ns for M`.
fn parse(figure: &str) -> Option<(&str, f64)> {
    let (name, rest) = figure.trim_end().split_once(": ")?;
    let (nanoseconds, count) = rest.split_once(" ns for ")?;
    let count: f64 = count.parse().ok().filter(|count| *count > 0.0)?;
    Some((name, nanoseconds.parse::<f64>().ok()? / count))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_figure_is_divided_by_its_count() {
        assert_eq!(parse("unmap: 600 ns for 4\n"), Some(("unmap", 150.0)));
        assert_eq!(parse("unmap: 600 ns for 0"), None);
        assert_eq!(parse("unmap"), None);
    }
}
