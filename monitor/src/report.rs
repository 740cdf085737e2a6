//! The report of a run: JSON for other programs. Its schema in prose is `docs/report.md`.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::units::{FRAMES_PER_MIB, FrameCount};
use serde::Serialize;

use crate::scheduler::Reading;
use crate::supervisor::{
    AppTotals, BalloonTotals, EnforcementTotals, GuestOutcome, LoopTimes, Outcome, RequestTotals, SwapTotals,
};

/// Time between samples at first. Time is divided into cells of this length, and the first
/// observation in each cell is kept. All guests are therefore sampled at the same moments, and what
/// they held at one moment can be added up.
const PACE_MS: u64 = 100;
/// Number of samples at which every second one is dropped and the rate is halved, so that a report
/// can cover days as well as seconds.
const LIMIT: usize = 36_000;

/// One guest at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    ms: u64,
    size_mib: u64,
    balloon_mib: u64,
    target_mib: u64,
    resident_mib: u64,
    stalled_ms: u64,
}

impl Sample {
    /// Makes a sample of what was observed `elapsed` after the run began.
    #[must_use]
    pub fn new(elapsed: Duration, size: FrameCount, reading: &Reading) -> Self {
        Self {
            ms: milliseconds(elapsed),
            size_mib: size.mib(),
            balloon_mib: reading.balloon.mib(),
            target_mib: reading.target.mib(),
            resident_mib: mib_ceil(reading.resident),
            stalled_ms: 0,
        }
    }

    /// Adds the time in which threads of the guest have waited for memory so far.
    #[must_use]
    pub fn with_stalled(self, stalled: Duration) -> Self {
        Self { stalled_ms: milliseconds(stalled), ..self }
    }

    pub(crate) fn ms(&self) -> u64 {
        self.ms
    }

    pub(crate) fn target_mib(&self) -> u64 {
        self.target_mib
    }

    pub(crate) fn resident_mib(&self) -> u64 {
        self.resident_mib
    }

    pub(crate) fn stalled_ms(&self) -> u64 {
        self.stalled_ms
    }
}

/// A guest's samples: a bounded number of them at equal intervals.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Samples {
    samples: Vec<Sample>,
    #[serde(skip)]
    pace_ms: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { samples: Vec::new(), pace_ms: PACE_MS }
    }
}

impl Samples {
    /// Returns whether there are no samples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Returns the samples, in the order of time.
    pub(crate) fn as_slice(&self) -> &[Sample] {
        &self.samples
    }

    /// Returns the time between samples.
    pub(crate) fn pace_ms(&self) -> u64 {
        self.pace_ms
    }

    /// Keeps `sample` if the next one is due.
    pub fn record(&mut self, sample: Sample) {
        let cell = |sample: &Sample, pace_ms| sample.ms / pace_ms;
        if self.samples.last().is_some_and(|last| cell(last, self.pace_ms) == cell(&sample, self.pace_ms)) {
            return;
        }
        if self.samples.len() == LIMIT {
            self.pace_ms *= 2;
            self.samples.dedup_by_key(|sample| cell(sample, self.pace_ms));
        }
        self.samples.push(sample);
    }
}

/// Version of the report's keys. Version 1 had `given_mib`, `taken_mib` and `harvested_mib`, and
/// did not state its version.
const SCHEMA: u64 = 2;

#[derive(Serialize)]
struct Report<'a> {
    schema: u64,
    pool_mib: u64,
    moved_mib: u64,
    peak_resident_mib: u64,
    peak_physical_mib: u64,
    violations: u64,
    supervisor: LoopReport,
    guests: Vec<GuestReport<'a>>,
}

#[derive(Serialize)]
struct LoopReport {
    rounds: u64,
    longest_round_ms: f64,
    longest_own_round_ms: f64,
}

#[derive(Serialize)]
struct GuestReport<'a> {
    name: &'a str,
    min_mib: u64,
    max_mib: u64,
    spawn_to_main_ms: Option<f64>,
    samples: &'a Samples,
    app: Option<AppReport>,
    allocation_failures: u64,
    dropped_log_lines: u64,
    balloon: BalloonReport<'a>,
    enforcement: EnforcementReport,
    swap: SwapReport,
    requests: RequestReport,
    exit: String,
}

#[derive(Serialize)]
struct AppReport {
    verified_bytes: u64,
    errors: u64,
}

#[derive(Serialize)]
struct BalloonReport<'a> {
    inflated_mib: u64,
    deflated_mib: u64,
    host_reclaimed_mib: u64,
    refused_entries: BTreeMap<&'static str, u64>,
    calls: u64,
    throttled_calls: u64,
    throttled_ms: u64,
    overuse_episodes: u64,
    peak_overuse_mib: u64,
    reclaimed_mib: u64,
    disagreements: u64,
    allocation_failures: u64,
    inflating_ms: u64,
    deflating_ms: u64,
    state: &'a str,
    last_error: &'a str,
}

#[derive(Serialize)]
struct EnforcementReport {
    episodes: u64,
    confined_ms: u64,
    peak_paged_out_mib: u64,
    paged_out_mib: u64,
    paged_in_mib: u64,
    pauses: u64,
    squeezes: u64,
}

#[derive(Serialize)]
struct SwapReport {
    compressed_mib: u64,
    compressed_into_mib: u64,
    on_disk_mib: u64,
    swapped_in_mib: u64,
    swapped_out_mib: u64,
    refaults: u64,
    major_faults: u64,
    stalled_ms: u64,
    pressure_percent: f64,
}

#[derive(Serialize)]
struct RequestReport {
    filed: u64,
    granted: u64,
    partly_granted: u64,
    denied: u64,
    unused: u64,
    longest_to_grant_ms: u64,
}

/// Writes the report of a run.
///
/// # Errors
///
/// Returns the error of a write to `output`.
pub fn write(outcome: &Outcome, mut output: impl io::Write) -> io::Result<()> {
    let report = Report {
        schema: SCHEMA,
        pool_mib: outcome.pool.mib(),
        moved_mib: outcome.moved.mib(),
        peak_resident_mib: mib_ceil(outcome.peak_resident),
        peak_physical_mib: mib_ceil(outcome.peak_physical),
        violations: outcome.violations,
        supervisor: LoopReport::new(&outcome.loop_times),
        guests: outcome.guests.iter().map(GuestReport::new).collect(),
    };
    serde_json::to_writer_pretty(&mut output, &report)?;
    writeln!(output)?;
    output.flush()
}

impl LoopReport {
    fn new(times: &LoopTimes) -> Self {
        Self {
            rounds: times.rounds,
            longest_round_ms: fine_milliseconds(times.longest),
            longest_own_round_ms: fine_milliseconds(times.longest_own),
        }
    }
}

impl<'a> GuestReport<'a> {
    fn new(guest: &'a GuestOutcome) -> Self {
        Self {
            name: &guest.name,
            min_mib: guest.limits.min.mib(),
            max_mib: guest.limits.max.mib(),
            spawn_to_main_ms: guest.spawn_to_main.map(fine_milliseconds),
            samples: &guest.samples,
            app: guest.app.map(|AppTotals { verified_bytes, errors }| AppReport { verified_bytes, errors }),
            allocation_failures: guest.allocation_failures,
            dropped_log_lines: guest.dropped_log_lines,
            balloon: BalloonReport::new(&guest.balloon),
            enforcement: EnforcementReport::new(&guest.enforcement),
            swap: SwapReport::new(&guest.swap),
            requests: RequestReport::new(&guest.requests),
            exit: guest.ending.reason.to_string(),
        }
    }
}

impl<'a> BalloonReport<'a> {
    fn new(totals: &'a BalloonTotals) -> Self {
        Self {
            inflated_mib: mib_ceil(totals.inflated),
            deflated_mib: mib_ceil(totals.deflated),
            host_reclaimed_mib: mib_ceil(totals.host_reclaimed),
            refused_entries: refusals(totals),
            calls: totals.calls,
            throttled_calls: totals.throttled_calls,
            throttled_ms: milliseconds(totals.throttled),
            overuse_episodes: totals.overuse_episodes,
            peak_overuse_mib: mib_ceil(totals.peak_overuse),
            reclaimed_mib: mib_ceil(totals.reclaimed),
            disagreements: totals.disagreements,
            allocation_failures: totals.allocation_failures,
            inflating_ms: milliseconds(totals.inflating),
            deflating_ms: milliseconds(totals.deflating),
            state: &totals.state,
            last_error: &totals.last_error,
        }
    }
}

/// Returns how often an entry was refused, for each reason.
fn refusals(totals: &BalloonTotals) -> BTreeMap<&'static str, u64> {
    let all = EntryStatus::ALL.into_iter().filter(|&status| status != EntryStatus::Done).map(|status| (status, 0));
    all.chain(totals.refused_entries.iter().copied()).map(|(status, count)| (status.name(), count)).collect()
}

impl EnforcementReport {
    fn new(totals: &EnforcementTotals) -> Self {
        let EnforcementTotals { episodes, confined, peak_paged_out, paged_out, paged_in, pauses, squeezes } = *totals;
        Self {
            episodes,
            confined_ms: milliseconds(confined),
            peak_paged_out_mib: mib_ceil(peak_paged_out),
            paged_out_mib: mib_ceil(paged_out),
            paged_in_mib: mib_ceil(paged_in),
            pauses,
            squeezes,
        }
    }
}

impl SwapReport {
    fn new(totals: &SwapTotals) -> Self {
        Self {
            compressed_mib: mib_ceil(totals.peak_compressed),
            compressed_into_mib: mib_ceil(totals.compressed_into),
            on_disk_mib: mib_ceil(totals.peak_on_disk),
            swapped_in_mib: mib_ceil(totals.swapped_in),
            swapped_out_mib: mib_ceil(totals.swapped_out),
            refaults: totals.refaults,
            major_faults: totals.major_faults,
            stalled_ms: milliseconds(totals.stalled),
            pressure_percent: f64::from(totals.peak_pressure_per_mille) / 10.0,
        }
    }
}

impl RequestReport {
    fn new(totals: &RequestTotals) -> Self {
        let RequestTotals { filed, granted, partly_granted, denied, expired, longest_to_grant } = *totals;
        let longest_to_grant_ms = milliseconds(longest_to_grant);
        Self { filed, granted, partly_granted, denied, unused: expired, longest_to_grant_ms }
    }
}

fn fine_milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Converts to mebibytes, rounded up: a number that is compared with a limit must not look smaller
/// than it is, and a small amount must not look like none.
fn mib_ceil(count: FrameCount) -> u64 {
    count.0.div_ceil(FRAMES_PER_MIB)
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, Sample, Samples, SwapReport, write};
    use crate::host::{EndReason, Ending};
    use crate::scheduler::{Limits, Reading};
    use crate::supervisor::{
        AppTotals, BalloonTotals, EnforcementTotals, GuestOutcome, LoopTimes, Outcome, RequestTotals, SwapTotals,
    };
    use aerostat_abi::batch::EntryStatus;
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    fn sample(ms: u64) -> Sample {
        let reading = Reading {
            balloon: FrameCount::from_mib(448),
            resident: FrameCount::from_mib(60),
            target: FrameCount::from_mib(64),
        };
        Sample::new(Duration::from_millis(ms), FrameCount::from_mib(64), &reading)
    }

    fn swapped() -> SwapTotals {
        SwapTotals {
            peak_compressed: FrameCount::from_mib(120),
            compressed_into: FrameCount(40 * 256 + 1),
            peak_on_disk: FrameCount(1),
            swapped_in: FrameCount::ZERO,
            swapped_out: FrameCount::from_mib(300),
            refaults: 7,
            major_faults: 8,
            stalled: Duration::from_micros(1_500_999),
            peak_pressure_per_mille: 42,
        }
    }

    fn balloon() -> BalloonTotals {
        BalloonTotals {
            inflated: FrameCount::from_mib(100),
            deflated: FrameCount(1),
            host_reclaimed: FrameCount::from_mib(3),
            refused_entries: vec![(EntryStatus::NotGranted, 5), (EntryStatus::HostFailed, 6)],
            calls: 99,
            throttled_calls: 8,
            throttled: Duration::from_micros(9_999),
            overuse_episodes: 1,
            peak_overuse: FrameCount::from_mib(40),
            reclaimed: FrameCount::from_mib(41),
            disagreements: 2,
            allocation_failures: 11,
            inflating: Duration::from_millis(12),
            deflating: Duration::from_millis(13),
            state: "at its target".into(),
            last_error: "none".into(),
        }
    }

    #[test]
    fn absurd_totals_have_a_report() {
        let most = SwapTotals {
            peak_compressed: FrameCount(u64::MAX),
            swapped_in: FrameCount(u64::MAX),
            stalled: Duration::MAX,
            refaults: u64::MAX,
            ..swapped()
        };
        let json = serde_json::to_value(SwapReport::new(&most)).unwrap();
        assert_eq!((&json["swapped_in_mib"], &json["stalled_ms"]), (&(1_u64 << 56).into(), &u64::MAX.into()));
    }

    #[test]
    fn the_report_has_the_published_shape() {
        let mut samples = Samples::default();
        [20, 40, 99, 100, 119, 120].into_iter().for_each(|ms| samples.record(sample(ms)));
        let guest = GuestOutcome {
            name: "alpha".into(),
            limits: Limits { min: FrameCount::from_mib(64), max: FrameCount::from_mib(512) },
            spawn_to_main: Some(Duration::from_micros(4250)),
            samples,
            app: Some(AppTotals { verified_bytes: 77, errors: 0 }),
            allocation_failures: 3,
            dropped_log_lines: 4,
            balloon: balloon(),
            enforcement: EnforcementTotals {
                episodes: 2,
                confined: Duration::from_millis(3450),
                peak_paged_out: FrameCount::from_mib(56),
                paged_out: FrameCount::from_mib(99),
                paged_in: FrameCount(1),
                pauses: 1,
                squeezes: 3,
            },
            swap: swapped(),
            requests: RequestTotals {
                filed: 3,
                granted: 1,
                denied: 2,
                longest_to_grant: Duration::from_millis(62),
                ..RequestTotals::default()
            },
            ending: Ending { reason: EndReason::Stopped, details: Vec::new() },
        };
        let outcome = Outcome {
            elapsed: Duration::from_secs(20),
            pool: FrameCount::from_mib(768),
            moved: FrameCount(255),
            peak_resident: FrameCount(257),
            peak_physical: FrameCount(513),
            violations: 0,
            loop_times: LoopTimes {
                rounds: 9,
                longest: Duration::from_micros(2500),
                longest_own: Duration::from_micros(1250),
                ..LoopTimes::default()
            },
            guests: vec![guest],
        };
        let mut json = Vec::new();
        write(&outcome, &mut json).unwrap();
        let sample_at = |ms: u64| serde_json::json!({"ms": ms, "size_mib": 64, "balloon_mib": 448, "target_mib": 64, "resident_mib": 60, "stalled_ms": 0});
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&json).unwrap(),
            serde_json::json!({
                "schema": 2, "pool_mib": 768, "moved_mib": 0, "peak_resident_mib": 2, "peak_physical_mib": 3, "violations": 0,
                "supervisor": {"rounds": 9, "longest_round_ms": 2.5, "longest_own_round_ms": 1.25},
                "guests": [{
                    "name": "alpha", "min_mib": 64, "max_mib": 512, "spawn_to_main_ms": 4.25,
                    "samples": [sample_at(20), sample_at(100)],
                    "app": {"verified_bytes": 77, "errors": 0}, "allocation_failures": 3, "dropped_log_lines": 4,
                    "balloon": {
                        "inflated_mib": 100, "deflated_mib": 1, "host_reclaimed_mib": 3,
                        "refused_entries": {
                            "unanswered": 0, "out_of_range": 0, "misaligned": 0, "bad_order": 0, "protected": 0,
                            "already_ballooned": 0, "not_ballooned": 0, "not_granted": 5, "host_failed": 6,
                        },
                        "calls": 99,
                        "throttled_calls": 8, "throttled_ms": 9, "overuse_episodes": 1, "peak_overuse_mib": 40,
                        "reclaimed_mib": 41, "disagreements": 2, "allocation_failures": 11,
                        "inflating_ms": 12, "deflating_ms": 13, "state": "at its target", "last_error": "none",
                    },
                    "enforcement": {
                        "episodes": 2, "confined_ms": 3450, "peak_paged_out_mib": 56, "paged_out_mib": 99,
                        "paged_in_mib": 1, "pauses": 1, "squeezes": 3,
                    },
                    "swap": {
                        "compressed_mib": 120, "compressed_into_mib": 41, "on_disk_mib": 1, "swapped_in_mib": 0, "swapped_out_mib": 300,
                        "refaults": 7, "major_faults": 8, "stalled_ms": 1500, "pressure_percent": 4.2,
                    },
                    "requests": {
                        "filed": 3, "granted": 1, "partly_granted": 0, "denied": 2, "unused": 0, "longest_to_grant_ms": 62,
                    },
                    "exit": "stopped",
                }],
            })
        );
        assert!(outcome.is_success());
    }

    #[test]
    fn a_long_run_is_sampled_less_often() {
        let mut samples = Samples::default();
        (0..3 * LIMIT as u64).for_each(|step| samples.record(sample(step * 100)));
        assert!(samples.samples.len() <= LIMIT);
        assert_eq!(samples.pace_ms, 400);
        assert!(samples.samples.windows(2).all(|pair| pair[0].ms < pair[1].ms));
    }
}
