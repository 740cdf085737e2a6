//! Trace files: a pool, groups of simulated guests, and what their applications need over time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use serde::Deserialize;

use super::demand::Demand;
use super::guest::{GuestPlan, KERNEL, Manners};
use crate::malformed::Malformed;
use crate::scheduler::Limits;
use crate::size::Size;
use crate::span::Span;

/// The most guests of a trace: a bound on memory.
const MOST_GUESTS: usize = 100_000;
/// The most ticks of a trace: a bound on time.
const MOST_TICKS: u128 = 10_000_000;
const DEFAULT_TICK: Duration = Duration::from_millis(20);

/// A valid trace.
#[derive(Debug)]
pub struct Trace {
    /// The memory that all guests share.
    pub pool: FrameCount,
    /// How long the run lasts.
    pub duration: Duration,
    /// The time between two decisions.
    pub tick: Duration,
    /// The groups of guests, in the order of the file.
    pub groups: Vec<Group>,
}

/// Guests with the same limits and the same demand, spread over its period.
#[derive(Debug)]
pub struct Group {
    /// The group's name.
    pub name: String,
    pub(super) guests: Vec<GuestPlan>,
}

/// Why a trace can't be simulated: one line that begins with the file's name.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct TraceError {
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("can't read the trace: {0}")]
    Unreadable(io::Error),
    #[error(transparent)]
    Malformed(Malformed),
    #[error("there is no [[guest]]; name at least one")]
    NoGuests,
    #[error("{what} is {size}, not a multiple of 2M; round it")]
    NotWhole { what: String, size: Size },
    #[error("guest {name:?}: min {min} is above max {max}; lower min or raise max")]
    MinAboveMax { name: String, min: Size, max: Size },
    #[error("guest {name:?}: min {min} is less than the kernel needs; take at least {KERNEL}")]
    MinTooSmall { name: String, min: Size },
    #[error("guest {0:?}: count is 0; say how many such guests there are, or leave count out")]
    NoCount(String),
    #[error("there are {0} guests; take at most {MOST_GUESTS}")]
    TooManyGuests(usize),
    #[error("the minima add up to {minima} and the pool has {pool}; raise pool or lower some min")]
    MinimaExceedPool { minima: FrameCount, pool: FrameCount },
    #[error("duration {duration:?} and tick {tick:?} make no run; take 1 to {MOST_TICKS} ticks")]
    Ticks { duration: Duration, tick: Duration },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceFile {
    pool: Size,
    duration: Span,
    tick: Option<Span>,
    #[serde(default, rename = "guest")]
    groups: Vec<GroupTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupTable {
    name: String,
    #[serde(default = "one")]
    count: usize,
    min: Size,
    max: Size,
    swap: Option<Size>,
    demand: Demand,
    #[serde(default)]
    ignores_targets: bool,
    /// What the host pages out of each in a second; without it, none can be paged.
    paging: Option<Size>,
    /// The time over which the guests of the group are spread.
    stagger: Option<Span>,
}

const fn one() -> usize {
    1
}

impl Trace {
    /// Reads and checks the trace at `path`.
    ///
    /// # Errors
    ///
    /// [`TraceError`] for the first thing that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        let fail = |problem| TraceError { file: path.into(), problem };
        let text = fs::read_to_string(path).map_err(|error| fail(Problem::Unreadable(error)))?;
        Self::parse(&text).map_err(fail)
    }

    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let file: TraceFile = toml::from_str(text).map_err(|error| Problem::Malformed(Malformed::new(text, &error)))?;
        let pool = whole("pool".into(), file.pool)?;
        let (duration, tick) = (file.duration.0, file.tick.map_or(DEFAULT_TICK, |tick| tick.0));
        if tick.is_zero() || !(1..=MOST_TICKS).contains(&(duration.as_nanos() / tick.as_nanos())) {
            return Err(Problem::Ticks { duration, tick });
        }
        let count = file.groups.iter().fold(0_usize, |sum, group| sum.saturating_add(group.count));
        if count > MOST_GUESTS {
            return Err(Problem::TooManyGuests(count));
        }
        let groups = file.groups.into_iter().map(GroupTable::check).collect::<Result<Vec<_>, _>>()?;
        let trace = Self { pool, duration, tick, groups };
        let minima = trace.guests().fold(FrameCount::ZERO, |sum, guest| sum.saturating_add(guest.limits.min));
        match trace.groups.is_empty() {
            true => Err(Problem::NoGuests),
            false if minima > pool => Err(Problem::MinimaExceedPool { minima, pool }),
            false => Ok(trace),
        }
    }

    /// Returns all guests, group by group.
    pub(super) fn guests(&self) -> impl Iterator<Item = &GuestPlan> {
        self.groups.iter().flat_map(|group| &group.guests)
    }
}

impl GroupTable {
    fn check(self) -> Result<Group, Problem> {
        let Self { name, count, min, max, swap, demand, ignores_targets, paging, stagger } = self;
        if count == 0 {
            return Err(Problem::NoCount(name));
        }
        if min > max {
            return Err(Problem::MinAboveMax { name, min, max });
        }
        let limits = Limits {
            min: whole(format!("guest {name:?}: min"), min)?,
            max: whole(format!("guest {name:?}: max"), max)?,
        };
        if limits.min < KERNEL {
            return Err(Problem::MinTooSmall { name, min });
        }
        let swap = swap.map_or(FrameCount::ZERO, |size| FrameCount::from_bytes_floor(size.bytes()));
        let paging_per_s = paging.map(|size| FrameCount::from_bytes_floor(size.bytes()));
        let manners = if ignores_targets { Manners::IgnoresTargets } else { Manners::Follows };
        let stagger = stagger.map_or(Duration::ZERO, |span| span.0);
        let guest = |index: usize| {
            let offset = stagger.mul_f64(index as f64 / count as f64);
            GuestPlan { limits, demand: demand.clone(), offset, swap, manners, paging_per_s }
        };
        Ok(Group { guests: (0..count).map(guest).collect(), name })
    }
}

fn whole(what: String, size: Size) -> Result<FrameCount, Problem> {
    size.whole_huge_frames().ok_or(Problem::NotWhole { what, size })
}

#[cfg(test)]
mod tests {
    use super::Trace;
    use proptest::proptest;
    use std::time::Duration;

    const GOOD: &str = r#"
pool = "1G"
duration = "60s"

[[guest]]
name = "web"
count = 4
min = "16M"
max = "128M"
swap = "64M"
demand = "100M/20M:4s,24M:8s"
stagger = "12s"
"#;

    #[test]
    fn the_guests_of_a_group_are_spread() {
        let trace = Trace::parse(GOOD).unwrap();
        let offsets: Vec<Duration> = trace.guests().map(|guest| guest.offset).collect();
        assert_eq!(offsets, [0, 3, 6, 9].map(Duration::from_secs));
        assert_eq!(trace.tick, Duration::from_millis(20));
    }

    #[test]
    fn every_error_is_reported_in_one_line() {
        let mistakes = [
            ("\"1G\"", "\"1025K\"", "pool is 1025K, not a multiple of 2M"),
            ("\"1G\"", "\"32M\"", "the minima add up to 64.0 MiB and the pool has 32.0 MiB"),
            ("60s", "1ms", "duration 1ms and tick 20ms make no run"),
            ("60s", "60", "line 3: \"60\" is not a length of time"),
            ("count = 4", "count = 0", "guest \"web\": count is 0"),
            ("count = 4", "count = 100001", "there are 100001 guests"),
            ("\"16M\"", "\"4M\"", "guest \"web\": min 4M is less than the kernel needs"),
            ("\"16M\"", "\"130M\"", "guest \"web\": min 130M is above max 128M"),
            ("100M/20M", "20M/100M", "line 11: phase \"20M/100M:4s\" uses more than it allocates"),
            ("stagger", "stager", "line 12: unknown field `stager`"),
        ];
        for (good, bad, expected) in mistakes {
            let message = Trace::parse(&GOOD.replacen(good, bad, 1)).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{good} -> {bad}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
        assert!(Trace::parse("pool = \"1G\"\nduration = \"1s\"").unwrap_err().to_string().contains("no [[guest]]"));
    }

    #[test]
    fn the_examples_are_valid() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../fleets/traces");
        let traces: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(traces.len() >= 6, "{traces:?}");
        for trace in traces {
            Trace::load(&trace).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Trace::parse(&text);
        }
    }
}
