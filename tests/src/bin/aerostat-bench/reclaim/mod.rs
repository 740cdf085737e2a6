//! Measures how well the guest kernel chooses pages to evict: the misses of its reclaim policies on
//! access traces, beside those of textbook policies and of Belady's optimum. It boots no guest; the
//! policies are the crate that the kernel runs.

mod classic;
#[cfg(test)]
mod goals;
pub(crate) mod index;
mod kernel;
mod synthetic;
mod trace;

use std::env;
use std::fs;

use aerostat_reclaim_policy::Name;
use anyhow::{Context, Result};

use self::kernel::Replay;
use self::trace::Trace;
use crate::row::Row;

/// Frames of the memory that synthetic traces are made for.
const FRAMES: u32 = 8192;
/// The variable that names a trace file to measure instead of all other traces.
const TRACE_FILE: &str = "AEROSTAT_TRACE";

/// A trace and a memory that is too small for it.
struct Case {
    name: &'static str,
    trace: Trace,
    frames: usize,
}

pub(crate) fn measure() -> Result<Vec<Row>> {
    let cases = match env::var_os(TRACE_FILE) {
        Some(file) => {
            let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            vec![Case::recorded("recorded", Trace::decode(&bytes)?, 50)]
        }
        None => cases()?,
    };
    println!("{HEADER}");
    let mut rows = Vec::new();
    for case in &cases {
        let outcome = Outcome::of(&case.trace, case.frames);
        println!("{}", outcome.line(case));
        let limit = percent(outcome.optimum, &case.trace);
        let ours = percent(outcome.default_policy().misses, &case.trace);
        rows.push(Row::cost(format!("reclaim_{}_miss", case.name), ours, "%", limit));
    }
    println!();
    Ok(rows)
}

fn cases() -> Result<Vec<Case>> {
    let index = index::record()?;
    let mut cases = synthetic_cases(FRAMES);
    cases.push(Case::recorded("index_75", index.clone(), 75));
    cases.push(Case::recorded("index_50", index.clone(), 50));
    cases.push(Case::recorded("index_25", index.clone(), 25));
    cases.push(Case::recorded("index_10", index, 10));
    Ok(cases)
}

fn synthetic_cases(frames: u32) -> Vec<Case> {
    let case = |name, trace| Case { name, trace, frames: frames as usize };
    vec![
        case("scan", synthetic::scan(frames)),
        case("zipf", synthetic::zipf(frames)),
        case("loop", synthetic::circle(frames, 110)),
        case("loop_150", synthetic::circle(frames, 150)),
        case("loop_300", synthetic::circle(frames, 300)),
        case("phases", synthetic::phases(frames)),
        case("window", synthetic::window(frames)),
        case("recency", synthetic::recency(frames)),
        case("mixed", synthetic::mixed(frames)),
    ]
}

impl Case {
    /// Makes a case whose memory is `percent` % of the trace's pages.
    fn recorded(name: &'static str, trace: Trace, percent: usize) -> Self {
        let frames = (trace.pages() * percent / 100).max(kernel::SMALLEST_FRAMES);
        Self { name, trace, frames }
    }
}

/// Misses of every policy on one trace, in one memory.
struct Outcome {
    optimum: u64,
    lru: u64,
    clock: u64,
    fifo: u64,
    /// The kernel's policies, in the order of [`Name::ALL`].
    kernel: [Replay; 2],
    /// The default policy with shuffled addresses, so that the hand's order is not the program's.
    shuffled: Replay,
}

impl Outcome {
    fn of(trace: &Trace, frames: usize) -> Self {
        let replay = |trace: &Trace, name: Name| kernel::replay(trace, frames, &mut name.policy());
        Self {
            optimum: classic::optimum(trace, frames),
            lru: classic::lru(trace, frames),
            clock: classic::clock(trace, frames),
            fifo: classic::fifo(trace, frames),
            kernel: Name::ALL.map(|name| replay(trace, name)),
            shuffled: replay(&synthetic::shuffled(trace), Name::default()),
        }
    }

    fn default_policy(&self) -> Replay {
        self.kernel[Name::ALL.iter().position(|&name| name == Name::default()).expect("the default is one of all")]
    }

    /// Returns a line of the table.
    fn line(&self, case: &Case) -> String {
        let percent = |misses| percent(misses, &case.trace);
        let [kernel_clock, _] = self.kernel;
        let (ours, shuffled) = (self.default_policy(), self.shuffled);
        let metrics =
            [self.optimum, self.lru, self.clock, self.fifo, kernel_clock.misses, ours.misses, shuffled.misses];
        let metrics: String = metrics.map(|misses| format!(" {:>11.3}", percent(misses))).concat();
        let (pages, frames, visits) = (case.trace.pages(), case.frames, ours.visits_per_eviction());
        format!("{:<9} {pages:>7} {frames:>7}{metrics} {visits:>6.1}", case.name)
    }
}

/// The head of the table. Misses are in per cent of touches: first of policies that see every
/// touch, then of those that are driven as the kernel drives them. The last column is the cost of
/// the default policy, in visits per eviction.
const HEADER: &str = "trace       pages  frames     optimum         LRU       CLOCK        FIFO  \
                      hand CLOCK generations    shuffled visits";

/// Returns misses in per cent of the trace's touches.
#[expect(clippy::cast_precision_loss, reason = "traces have far fewer than 2^53 touches")]
fn percent(misses: u64, trace: &Trace) -> f64 {
    misses as f64 * 100.0 / trace.touches().len().max(1) as f64
}
