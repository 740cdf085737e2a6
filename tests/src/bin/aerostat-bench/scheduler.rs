//! Measures the scheduler: without guests, what a decision costs, and how much of their work
//! simulated guests get done, as a part of what the best rule could let them do; and with guests
//! ([`churn`], [`fleets`]).

use std::path::Path;
use std::time::Duration;

use aerostat::clock::Moment;
use aerostat::scheduler::{Control, GuestSample, Hints, Limits, Policy, Scheduler, Subscription, Usage};
use aerostat::simulate::{self, Trace};
use aerostat_abi::units::FrameCount;
use anyhow::{Context, Result};

use crate::churn;
use crate::fleets;
use crate::row::Row;
use crate::sample::{median, seconds};

const GUESTS: u64 = 10_000;
const DECISIONS: u64 = 30;
/// Traces whose peaks do not coincide, so that a good rule comes close to the oracle.
const WITHIN_REACH: [&str; 4] = ["diurnal", "greedy", "idle-giants", "staggered"];
const GOAL_OF_WORK: f64 = 0.8;
const GOAL_OF_DECISION_MS: f64 = 10.0;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = vec![Row::plain("decide_10k_ms", decide_ms()?, "ms").goal(GOAL_OF_DECISION_MS)];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fleets/traces");
    let entries = directory.read_dir().with_context(|| format!("reading {}", directory.display()))?;
    let mut traces = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    traces.sort();
    for path in traces {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let comparison = simulate::compare(&Trace::load(&path)?);
        let row = Row::rate(format!("simulated_{}_work", name.replace('-', "_")), comparison.work(), "", 1.0);
        rows.push(if WITHIN_REACH.contains(&&*name) { row.goal(GOAL_OF_WORK) } else { row });
    }
    rows.extend(churn::measure()?);
    rows.extend(fleets::measure()?);
    Ok(rows)
}

/// Returns the time of a decision for guests whose needs change all the time, in a pool that is too
/// small for them.
fn decide_ms() -> Result<f64> {
    let min = FrameCount::from_mib(16);
    let limits = Limits { min, max: FrameCount::from_mib(512) };
    let mut scheduler = Scheduler::new(FrameCount::from_mib(64 * GUESTS), Policy::default());
    let admit = |_| Ok(scheduler.admit(limits, Subscription::default())?.0);
    let guests = (0..GUESTS).map(admit).collect::<Result<Vec<_>>>()?;
    let mut times = Vec::new();
    for round in 0..DECISIONS {
        let now = Moment::default().after(Duration::from_millis(20 * (round + 1)));
        for (index, &id) in guests.iter().enumerate() {
            let size = scheduler.target(id).unwrap_or(min);
            // Sizes from 0 to 255 MiB, another for each guest and each decision.
            let needs = FrameCount::from_mib((index as u64 * 37 + round * 11) % 256);
            let usage = Usage { used: needs.min(size), wanted: needs.saturating_sub(size), ..Usage::default() };
            let (hints, control) = (Hints::Report(usage), Control::default());
            let sample = GuestSample { allowed: size, size, resident: size, hints, control };
            scheduler.observe(id, &sample);
        }
        times.push(seconds(|| {
            scheduler.decide(now);
            Ok(())
        })?);
    }
    Ok(1000.0 * median(times))
}
