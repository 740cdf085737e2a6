//! One trace under one rule, and under all of them.

use std::thread;
use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::guest::{GuestPlan, SimulatedGuest};
use super::oracle::least_stall;
use super::rules::{self, Observed, Rule};
use super::scaled;
use super::timeline::Timeline;
use super::trace::Trace;
use crate::clock::Moment;
use crate::scheduler::Limits;

/// What became of a fleet under one rule.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The rule's name.
    pub rule: &'static str,
    /// The time in which each guest stood still, group by group.
    pub stalled: Vec<Duration>,
    /// Target changes of all guests.
    pub changes: u64,
    /// The sum of all changes of size.
    pub moved: FrameCount,
    /// What a plot needs.
    pub timeline: Timeline,
    /// Whether the rule wished for more than was free at some moment.
    pub overdrew: bool,
}

impl RunResult {
    /// Returns the stall of all guests together.
    #[must_use]
    pub fn total_stall(&self) -> Duration {
        self.stalled.iter().sum()
    }

    /// Returns the stall of the guest that stood still longest.
    #[must_use]
    pub fn worst_stall(&self) -> Duration {
        self.stalled.iter().copied().max().unwrap_or_default()
    }
}

/// A trace under all rules.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// How long each run lasted, in simulated time.
    pub duration: Duration,
    /// The memory that all guests shared.
    pub pool: FrameCount,
    /// The groups of guests, by name and number, in the order of the trace.
    pub groups: Vec<(String, usize)>,
    /// The least stall that any rule could have caused, all guests together.
    pub least_stall: Duration,
    /// The runs, the scheduler's first.
    pub runs: Vec<RunResult>,
}

impl Comparison {
    /// Returns the time in which guests worked under the scheduler, as a part of that under the
    /// oracle.
    #[must_use]
    pub fn work(&self) -> f64 {
        self.runs.first().map_or(1.0, |run| self.work_of(run))
    }

    /// Returns the same for a run under any rule.
    pub(super) fn work_of(&self, run: &RunResult) -> f64 {
        let all = self.all_time();
        (all - run.total_stall().as_secs_f64()) / (all - self.least_stall.as_secs_f64())
    }

    /// Returns the time of all guests together, in seconds.
    pub(super) fn all_time(&self) -> f64 {
        let guests: usize = self.groups.iter().map(|(_, count)| count).sum();
        self.duration.as_secs_f64() * guests as f64
    }
}

/// Runs `trace` under all rules, several at a time.
#[must_use]
pub fn compare(trace: &Trace) -> Comparison {
    let plans: Vec<GuestPlan> = trace.guests().cloned().collect();
    let limits: Vec<Limits> = plans.iter().map(|plan| plan.limits).collect();
    thread::scope(|scope| {
        let oracle = scope.spawn(|| least_stall(&plans, trace.pool, trace.duration, trace.tick));
        let runs: Vec<_> = rules::all(trace.pool, &limits)
            .into_iter()
            .map(|mut rule| {
                let plans = &plans;
                scope.spawn(move || run(trace, plans, &mut *rule))
            })
            .collect();
        let joined = "a simulation does not panic";
        Comparison {
            duration: trace.duration,
            pool: trace.pool,
            groups: trace.groups.iter().map(|group| (group.name.clone(), group.guests.len())).collect(),
            least_stall: oracle.join().expect(joined),
            runs: runs.into_iter().map(|run| run.join().expect(joined)).collect(),
        }
    })
}

fn run(trace: &Trace, plans: &[GuestPlan], rule: &mut dyn Rule) -> RunResult {
    let mut guests: Vec<SimulatedGuest> = plans.iter().map(SimulatedGuest::new).collect();
    let mut result = RunResult {
        rule: rule.name(),
        stalled: Vec::new(),
        changes: 0,
        moved: FrameCount::ZERO,
        timeline: Timeline::new(trace.duration, trace.tick),
        overdrew: false,
    };
    let mut observed = Vec::with_capacity(guests.len());
    let mut elapsed = trace.tick;
    while elapsed <= trace.duration {
        observed.clear();
        for guest in &mut guests {
            let before = guest.size;
            guest.tick(elapsed, trace.tick);
            result.moved = result.moved.saturating_add(FrameCount(guest.size.0.abs_diff(before.0)));
            observed.push(Observed { limits: guest.limits, target: guest.target, sample: guest.sample() });
        }
        result.timeline.record(elapsed, &trace.groups, &guests);
        let wishes = rule.decide(&observed, Moment::default().after(elapsed));
        let (targets, overdrew) = grant(trace.pool, &observed, &wishes);
        result.overdrew |= overdrew;
        for (guest, target) in guests.iter_mut().zip(targets) {
            result.changes += u64::from(guest.target != target);
            guest.target = target;
        }
        for (index, guest) in guests.iter_mut().enumerate() {
            guest.limit = rule.is_confined(index).then_some(guest.target);
        }
        elapsed += trace.tick;
    }
    result.stalled = guests.iter().map(|guest| guest.stalled).collect();
    result
}

/// Turns wishes into targets that the pool can pay: each within its guest's limits, raises from
/// free memory only, all by the same part where that does not suffice. Also returns whether it did
/// not.
fn grant(pool: FrameCount, guests: &[Observed], wishes: &[FrameCount]) -> (Vec<FrameCount>, bool) {
    let wishes = guests.iter().zip(wishes).map(|(guest, &wish)| wish.max(guest.limits.min).min(guest.limits.max));
    let wishes: Vec<FrameCount> = wishes.collect();
    // A guest holds its old size until it has shrunk, or is confined.
    let held = |guest: &Observed| {
        let sample = &guest.sample;
        sample.control.limit.map_or(sample.size, |limit| limit.min(sample.size).max(sample.resident))
    };
    let free = pool.0.saturating_sub(guests.iter().map(|guest| held(guest).0).sum());
    let raises: u64 = guests.iter().zip(&wishes).map(|(guest, wish)| wish.saturating_sub(held(guest)).0).sum();
    if raises <= free {
        return (wishes, false);
    }
    let part = free as f64 / raises as f64;
    let targets = guests.iter().zip(&wishes).map(|(guest, &wish)| {
        let raise = wish.saturating_sub(held(guest));
        if raise == FrameCount::ZERO { wish } else { held(guest).saturating_add(scaled(raise, part)) }
    });
    (targets.collect(), true)
}

#[cfg(test)]
mod tests {
    use super::{Comparison, compare};
    use crate::simulate::Trace;
    use std::time::Duration;

    fn compared(text: &str) -> Comparison {
        compare(&Trace::parse(text).unwrap())
    }

    const TWO: &str = r#"
pool = "256M"
duration = "40s"
[[guest]]
name = "pair"
count = 2
min = "16M"
max = "256M"
demand = "180M:10s,20M:10s"
stagger = "20s"
"#;

    #[test]
    fn memory_that_follows_demand_saves_what_a_fixed_split_loses() {
        let comparison = compared(TWO);
        assert_eq!(comparison.least_stall, Duration::ZERO);
        let [scheduler, _, fixed, ..] = &comparison.runs[..] else { panic!("two rules") };
        assert_eq!((scheduler.rule, fixed.rule), ("aerostat", "equal parts"));
        assert!(fixed.total_stall() >= Duration::from_secs(40), "a half of the pool is less than 180 MiB");
        assert!(scheduler.total_stall() < Duration::from_secs(1), "{:?}", scheduler.total_stall());
        assert!(!scheduler.overdrew);
    }

    #[test]
    fn a_guest_that_ignores_its_target_costs_its_neighbours_little() {
        let pair =
            TWO.replace("demand = \"180M:10s,20M:10s\"", "demand = \"180M/20M:5s,20M:95s\"").replace("count = 2\n", "");
        let pair = pair.replace("stagger = \"20s\"", "ignores_targets = true\npaging = \"400M\"");
        let neighbour = "[[guest]]\nname = \"other\"\nmin = \"16M\"\nmax = \"256M\"\ndemand = \"16M:10s,200M:90s\"\n";
        let stalled = |text: &str| compared(text).runs[0].stalled[1];
        let confined = stalled(&(pair.clone() + neighbour));
        assert!(confined < Duration::from_secs(1), "{confined:?}");
        let tolerated = stalled(&(pair.replace("paging = \"400M\"", "") + neighbour));
        assert!(tolerated > Duration::from_secs(20), "it never gets what it needs: {tolerated:?}");
    }

    #[test]
    fn no_rule_beats_the_oracle() {
        let crowded = TWO.replace("stagger = \"20s\"", "swap = \"256M\"").replace("180M:", "180M/150M:");
        for text in [TWO, &crowded, &TWO.replace("256M\"\nduration", "150M\"\nduration")] {
            let comparison = compared(text);
            for run in &comparison.runs {
                assert!(run.total_stall() >= comparison.least_stall, "{}: {run:?}", run.rule);
            }
        }
    }
}
