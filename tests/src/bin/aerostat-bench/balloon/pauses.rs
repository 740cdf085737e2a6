//! Measures the pauses of an application that computes while memory leaves its guest and returns.

use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::GuestExit;
use aerostat_tests::Plan;
use anyhow::{Result, ensure};

use super::mover::Mover;
use super::{MEMORY_MIB, MOVED_MIB, TURNS};
use crate::metrics::Metrics;
use crate::row::Row;

#[cfg(test)]
#[path = "../../../../guests/src/gaps.rs"]
mod gaps;

/// The time in which memory must leave and return for a turn to count: the half second that the
/// guest works for, less the time until this process sees that the guest is ready.
const WINDOW: Duration = Duration::from_millis(400);
/// How long memory is away.
const AWAY: Duration = Duration::from_millis(20);
/// The goal for the longest pause, in microseconds.
const WORST_GOAL_US: f64 = 5000.0;
/// Memory of the guest that is full of data.
const EVICTING_MIB: u64 = 512;
/// Memory that is free in it and leaves first.
const FREE_MIB: u64 = 56;
/// Memory that has to be evicted.
const EVICTED_MIB: u64 = 96;
/// The time in which that must happen: as for [`WINDOW`], of the time that the guest works for.
const LONG_WINDOW: Duration = Duration::from_millis(4900);

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut metrics = Metrics::default();
    let mut turns = 0;
    for _ in 0..2 * TURNS {
        let mut guest = Mover::boot(MEMORY_MIB, "pauses");
        let ready = Instant::now();
        guest.resize(MEMORY_MIB - MOVED_MIB)?;
        thread::sleep(AWAY);
        guest.resize(MEMORY_MIB)?;
        let is_in_time = ready.elapsed() < WINDOW;
        guest.0.expect_exit(GuestExit::Success);
        if is_in_time {
            metrics.add_guest(&guest.0)?;
            turns += 1;
        }
        if turns == TURNS {
            break;
        }
    }
    ensure!(turns > 0, "memory never left and returned within {WINDOW:?}");
    let us = |name: &str| metrics.ns(name).map(|ns| ns / 1e3);
    let slowdown = (1.0 - us("quiet_unit")? / us("moving_unit")?) * 100.0;
    let mut rows = vec![
        Row::cost("pause_worst_us", us("moving_worst")?, "us", us("quiet_worst")?).goal(WORST_GOAL_US),
        Row::cost("pause_p999_us", us("moving_p999")?, "us", us("quiet_p999")?),
        Row::plain("slowdown_percent", slowdown, "%"),
    ];
    rows.push(while_evicting()?);
    rows.push(while_compacting()?);
    Ok(rows)
}

/// Measures pauses while memory leaves that is full of data, so that the balloon driver and the
/// reclaimer work.
fn while_evicting() -> Result<Row> {
    let plan = Plan::test_guest("bench_balloon").memory_mib(EVICTING_MIB).swap_mib(EVICTING_MIB);
    let mut metrics = Metrics::default();
    for _ in 0..TURNS {
        let mut guest = Mover::boot_plan(&plan, "pauses-evicting");
        let ready = Instant::now();
        guest.resize(EVICTING_MIB - FREE_MIB - EVICTED_MIB)?;
        ensure!(ready.elapsed() < LONG_WINDOW, "{EVICTED_MIB} MiB were not evicted within {LONG_WINDOW:?}");
        guest.0.expect_exit(GuestExit::Success);
        metrics.add_guest(&guest.0)?;
    }
    let us = |name: &str| metrics.ns(name).map(|ns| ns / 1e3);
    Ok(Row::cost("pause_evicting_us", us("evicting_worst")?, "us", us("evicted_worst")?).goal(WORST_GOAL_US))
}

/// Measures pauses while the background compacts memory and makes huge pages.
fn while_compacting() -> Result<Row> {
    let plan = Plan::test_guest("bench_balloon").memory_mib(EVICTING_MIB);
    let mut metrics = Metrics::default();
    for _ in 0..TURNS {
        let mut guest = Mover::boot_plan(&plan, "pauses-compacting");
        guest.0.expect_exit(GuestExit::Success);
        metrics.add_guest(&guest.0)?;
    }
    let us = |name: &str| metrics.ns(name).map(|ns| ns / 1e3);
    Ok(Row::cost("pause_compacting_us", us("compacting_worst")?, "us", us("compacted_worst")?).goal(WORST_GOAL_US))
}

#[cfg(test)]
mod tests {
    use super::gaps::Gaps;

    #[test]
    fn one_gap_in_a_thousand_may_exceed_p999() {
        let mut gaps = Gaps::new();
        (0..999).for_each(|_| gaps.add(10_400));
        gaps.add(7_000_000);
        assert_eq!((gaps.count(), gaps.worst(), gaps.p999()), (1000, 7_000_000, 11_000));
        gaps.add(20_500);
        assert_eq!(gaps.p999(), 21_000);
    }

    #[test]
    fn gaps_beyond_the_scale_are_counted() {
        let mut gaps = Gaps::new();
        gaps.add(u64::MAX);
        assert_eq!((gaps.worst(), gaps.p999() > 4_000_000), (u64::MAX, true));
    }

    #[test]
    fn without_gaps_all_figures_are_zero() {
        assert_eq!((Gaps::new().worst(), Gaps::new().p999()), (0, 0));
    }
}
