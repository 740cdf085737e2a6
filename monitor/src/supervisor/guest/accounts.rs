//! What a guest uses, by its last poll. A guest that ended keeps its counters and uses nothing.

use std::time::Duration;

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::accepted::{Claims, ResidentWatch};
use super::{OWN_MEMORY, Start};
use crate::clock::Moment;
use crate::host::{BalloonCounters, Observation, Reports};
use crate::report::{Sample, Samples};
use crate::scheduler::Reading;
use crate::supervisor::swap::SwapAccount;

/// The accounts of one guest.
#[derive(Debug)]
pub(super) struct Accounts {
    spawned: Moment,
    /// `None` until the guest's process has published one, and after the guest's end.
    size: Option<FrameCount>,
    pub(super) balloon: FrameCount,
    pub(super) resident: FrameCount,
    page_tables: FrameCount,
    last_call: Option<Moment>,
    pub(super) counters: BalloonCounters,
    pub(super) dropped_lines: u64,
    pub(super) statistics: Statistics,
    /// Where it is said what the guest needs.
    pub(super) reports: Reports,
    pub(super) swap: SwapAccount,
    /// From before the start of the process to the application's `main`.
    pub(super) spawn_to_main: Option<Duration>,
    resident_watch: ResidentWatch,
    /// Kept only if a report will read them.
    samples: Option<Samples>,
}

impl Accounts {
    pub(super) fn new(start: Start) -> Self {
        Self {
            spawned: start.spawned,
            size: start.size,
            balloon: FrameCount::ZERO,
            resident: FrameCount::ZERO,
            page_tables: FrameCount::ZERO,
            last_call: None,
            counters: BalloonCounters::default(),
            dropped_lines: 0,
            statistics: Statistics::default(),
            reports: Reports::default(),
            swap: SwapAccount::default(),
            spawn_to_main: None,
            resident_watch: ResidentWatch::default(),
            samples: None,
        }
    }

    /// Records an observation that was accepted. `measure` returns the memory of the guest's
    /// process, measured from outside.
    pub(super) fn update(
        &mut self,
        observation: &Observation,
        now: Moment,
        measure: impl FnOnce() -> Option<FrameCount>,
    ) {
        let Observation { size, resident, main, .. } = *observation;
        self.resident = self.resident_watch.observe(Claims { size, resident }, now, measure);
        self.size = size;
        self.balloon = observation.balloon.unwrap_or(self.balloon);
        self.page_tables = observation.page_tables.unwrap_or(self.page_tables);
        self.last_call = observation.last_call;
        self.counters = observation.counters.unwrap_or(self.counters);
        self.dropped_lines = observation.dropped_lines.unwrap_or(self.dropped_lines);
        self.statistics = observation.statistics.unwrap_or_default();
        self.reports = observation.reports;
        self.swap.observe(&self.statistics, now);
        if let Some(main) = main {
            self.spawn_to_main.get_or_insert_with(|| main.since(self.spawned));
        }
    }

    /// Counts all memory of a guest that has ended as released.
    pub(super) fn close(&mut self) {
        self.size = None;
        self.balloon = FrameCount::ZERO;
        self.resident = FrameCount::ZERO;
        self.page_tables = FrameCount::ZERO;
    }

    /// Returns the moment before the guest's process was started.
    pub(super) fn spawned(&self) -> Moment {
        self.spawned
    }

    /// Returns when the driver last made a call to the balloon, or the guest's start if it made
    /// none.
    pub(super) fn last_call(&self) -> Moment {
        self.last_call.map_or(self.spawned, |at| at.max(self.spawned))
    }

    /// Returns the guest size, if one is published.
    pub(super) fn published_size(&self) -> Option<FrameCount> {
        self.size
    }

    /// Returns the guest size, zero before one is published.
    pub(super) fn size(&self) -> FrameCount {
        self.size.unwrap_or_default()
    }

    /// Returns the host memory that the guest uses: what is behind it, and the page tables that map
    /// it.
    pub(super) fn charged(&self) -> FrameCount {
        self.resident.saturating_add(self.page_tables)
    }

    /// Returns the memory that threads in the guest wait for, by its own report.
    pub(super) fn wanted(&self) -> FrameCount {
        FrameCount::from_bytes_ceil(self.statistics.wanted_bytes)
    }

    pub(super) fn reading(&self, target: FrameCount) -> Reading {
        Reading { balloon: self.balloon, resident: self.resident, target }
    }

    /// Keeps samples from now on.
    pub(super) fn keep_samples(&mut self) {
        self.samples.get_or_insert_default();
    }

    /// Keeps a sample for the report. Samples begin when a size is published, and stop when the
    /// guest has ended.
    pub(super) fn record(&mut self, elapsed: Duration, target: FrameCount) {
        let Some(size) = self.size else { return };
        let stalled = Duration::from_nanos(self.statistics.stalled_ns);
        let sample = Sample::new(elapsed, size, &self.reading(target)).with_stalled(stalled);
        if let Some(samples) = &mut self.samples {
            samples.record(sample);
        }
    }

    pub(super) fn into_samples(self) -> Samples {
        self.samples.unwrap_or_default()
    }
}

/// Returns what a guest of this size may use beyond it: its VMM process's own memory, and a page
/// table for each of its huge frames.
pub(in crate::supervisor) fn overhead(size: FrameCount) -> FrameCount {
    OWN_MEMORY.saturating_add(FrameCount(size.0 / HUGE_FRAMES))
}
