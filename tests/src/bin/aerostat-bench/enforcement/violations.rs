//! Counts the polls, in all runs of the bench, at which more memory was granted or physically used
//! than the pool has.

use aerostat::supervisor::Outcome;
use aerostat_abi::units::FrameCount;
use anyhow::{Result, ensure};

use crate::row::Row;
use crate::sample::to_f64;

/// The violations so far.
#[derive(Debug, Default)]
pub(super) struct Violations(u64);

impl Violations {
    /// Adds those of a run.
    ///
    /// # Errors
    /// Where the run did not measure physical memory, or had no guest that used any.
    pub(super) fn add(&mut self, outcome: &Outcome) -> Result<()> {
        ensure!(outcome.peak_physical > FrameCount::ZERO, "no physical memory was measured");
        self.0 += outcome.violations;
        Ok(())
    }

    pub(super) fn row(&self) -> Row {
        Row::cost("violations", to_f64(self.0), "", 0.0)
    }
}
