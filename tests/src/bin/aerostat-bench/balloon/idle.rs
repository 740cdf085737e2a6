//! Measures an idle guest: how soon it follows its target, and how much processor time it takes.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::mover::Mover;
use super::{MEMORY_MIB, to_f64};
use crate::row::Row;
use crate::sample::median;

/// Changes of the target.
const CHANGES: usize = 200;
/// One huge frame.
const STEP_MIB: u64 = 2;
/// The time after which a booted guest is idle.
const BOOTED: Duration = Duration::from_secs(2);
/// The time after which a guest is idle again after a change.
const REST: Duration = Duration::from_millis(5);
/// The goal for the time to follow a target, in microseconds.
const REACTION_GOAL_US: f64 = 200.0;
/// How long the processor time of an idle guest is measured.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// The goal for the share of a processor that an idle guest takes.
const IDLE_GOAL_PERCENT: f64 = 0.05;

pub(super) fn measure() -> Result<Vec<Row>> {
    let guest = Mover::boot(MEMORY_MIB, "idle");
    thread::sleep(BOOTED);
    let (idle, idle_vcpu) = idle_percent(guest.0.pid())?;
    let reactions = reactions_us(&guest)?;
    let worst = reactions.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Row::plain("reaction_us", median(reactions), "us").goal(REACTION_GOAL_US),
        Row::plain("reaction_worst_us", worst, "us"),
        Row::plain("idle_percent", idle, "%").goal(IDLE_GOAL_PERCENT),
        Row::plain("idle_vcpu_percent", idle_vcpu, "%"),
    ])
}

/// Returns the microseconds from each change of the target to the first ballooned frame.
fn reactions_us(guest: &Mover) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        thread::sleep(REST);
        let inflated = guest.0.facts().inflated;
        times.push(1e6 * guest.retarget(MEMORY_MIB - STEP_MIB, |facts| facts.inflated > inflated)?);
        guest.resize(MEMORY_MIB)?;
    }
    Ok(times)
}

/// Returns the share of a processor that a VMM process takes while its guest is idle: of all its
/// threads, and of the vCPU's thread alone.
fn idle_percent(pid: u32) -> Result<(f64, f64)> {
    let start = Instant::now();
    let before = Times::of(pid)?;
    thread::sleep(IDLE_TIME);
    let after = Times::of(pid)?;
    let percent = |nanoseconds: u64| to_f64(nanoseconds) / start.elapsed().as_secs_f64() / 1e7;
    Ok((percent(after.all_ns - before.all_ns), percent(after.vcpu_ns - before.vcpu_ns)))
}

/// Time that the threads of a process have run, in nanoseconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Times {
    all_ns: u64,
    vcpu_ns: u64,
}

impl Times {
    /// Reads `schedstat` of every thread (Linux, Documentation/scheduler/sched-stats.rst), as
    /// `stat` counts in ticks of 10 ms, which is too coarse.
    fn of(pid: u32) -> Result<Self> {
        let mut times = Self::default();
        let threads = format!("/proc/{pid}/task");
        for thread in fs::read_dir(&threads).with_context(|| format!("reading {threads}"))? {
            let folder = thread?.path();
            let read = |name: &str| {
                fs::read_to_string(folder.join(name)).with_context(|| format!("reading {name} of a thread"))
            };
            times.add(&read("comm")?, &read("schedstat")?)?;
        }
        Ok(times)
    }

    fn add(&mut self, name: &str, schedstat: &str) -> Result<()> {
        let run = schedstat.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        let run = run.with_context(|| format!("no time: {schedstat:?}"))?;
        self.all_ns += run;
        if name.trim_end() == "vcpu" {
            self.vcpu_ns += run;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn times_of_threads_are_added_up() {
        let mut times = Times::default();
        times.add("aerostat\n", "70 5 2\n").unwrap();
        times.add("vcpu\n", "30 9 1\n").unwrap();
        assert_eq!(times, Times { all_ns: 100, vcpu_ns: 30 });
        assert!(times.add("vcpu\n", "").is_err());
    }
}
