//! Measures what the jail costs at a start: the time from when a VMM process has opened what it
//! needs until it is confined, by its own stamps.

use aerostat_abi::registers::BootStage;
use aerostat_tests::Plan;
use anyhow::Result;

use crate::boot;
use crate::row::Row;
use crate::sample::median;

const STARTS: usize = 31;
/// The most that it may take.
const MOST_MS: f64 = 1.0;

pub(super) fn measure() -> Result<Row> {
    let plan = Plan::app("hello");
    let entering = |stages: boot::Stages| stages[BootStage::Jailed as usize] - stages[BootStage::Opened as usize];
    let spans = (0..STARTS).map(|_| boot::start(&plan).map(entering)).collect::<Result<Vec<_>>>()?;
    Ok(Row::cost("jail_ms", median(spans), "ms", MOST_MS).goal_of_limit(1.0))
}
