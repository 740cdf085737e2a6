//! A guest that does nothing: how soon it follows its target, and what it costs the host meanwhile.

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
/// From the start, or from one change to the next: the guest has gone back to sleep.
const BOOTED: Duration = Duration::from_secs(2);
const REST: Duration = Duration::from_millis(5);
/// What following a target may take at most, in microseconds.
const REACTION_GOAL_US: f64 = 200.0;
/// What an idle guest may take of a processor.
const IDLE_TIME: Duration = Duration::from_secs(10);
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

/// Microseconds from each change of the target to the first frame given.
fn reactions_us(guest: &Mover) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(CHANGES);
    for _ in 0..CHANGES {
        thread::sleep(REST);
        let given = guest.0.facts().inflated;
        times.push(1e6 * guest.retarget(MEMORY_MIB - STEP_MIB, |facts| facts.inflated > given)?);
        guest.resize(MEMORY_MIB)?;
    }
    Ok(times)
}

/// What a VMM process takes of a processor while its guest is idle: all of it, and its processor's
/// thread alone.
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
    /// From `schedstat` of every thread (Linux, Documentation/scheduler/sched-stats.rst): `stat`
    /// counts in ticks of 10 ms, far too coarse.
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
    fn threads_add_up() {
        let mut times = Times::default();
        times.add("aerostat\n", "70 5 2\n").unwrap();
        times.add("vcpu\n", "30 9 1\n").unwrap();
        assert_eq!(times, Times { all_ns: 100, vcpu_ns: 30 });
        assert!(times.add("vcpu\n", "").is_err());
    }
}
