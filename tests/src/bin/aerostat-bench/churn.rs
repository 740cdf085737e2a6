//! Measures what shrinking costs guests that take turns: the work of two guests whose working sets
//! alternate, in a pool with room for both, as a part of the work of the same guests at fixed size.

use std::time::Duration;

use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{FleetPlan, Member};
use anyhow::{Context, Result};

use crate::row::Row;
use crate::sample::median;

/// Measurements of each kind, in turn.
const TURNS: usize = 5;
const RUN: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for both guests at their largest.
const POOL_MIB: u64 = 1024;
const MAX_MIB: u64 = 448;
/// The minimum of guests whose size follows what they need.
const MIN_MIB: u64 = 32;
const GOAL: f64 = 0.97;
const PHASES: [&str; 2] = ["phases=256M:400ms,16M:400ms repeat", "phases=16M:400ms,256M:400ms repeat"];

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let fixed = work(MAX_MIB)?;
        ratios.push(work(MIN_MIB)? / fixed);
    }
    Ok(vec![Row::rate("churn_work_ratio", median(ratios), "", 1.0).goal(GOAL)])
}

/// Returns the bytes that both guests verified.
fn work(min_mib: u64) -> Result<f64> {
    let names = ["ebb", "flow"];
    let plan = names.into_iter().zip(PHASES).fold(FleetPlan::pool_mib(POOL_MIB), |plan, (name, command_line)| {
        plan.with(&Member { name, image: app_image("memwalk"), min_mib, max_mib: MAX_MIB, command_line })
    });
    let run = plan.up(Some(RUN)).wait_for_end(PATIENCE);
    let verified = |name: &str| run.guest(name)["app"]["verified_bytes"].as_f64().context("no work in the report");
    Ok(verified(names[0])? + verified(names[1])?)
}
