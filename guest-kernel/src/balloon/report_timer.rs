//! When the guest reports to its monitor. Pure: the time is passed in.
//!
//! A report costs a call and the collection of all statistics, and it wakes an idle guest. So
//! changes are reported together, at most once in [`REPORT_SPACING_NS`]. A report that a thread
//! waits for is made at once. Without any demand a report is due after [`REPORT_PERIOD_NS`], and
//! after [`IDLE_REPORT_PERIOD_NS`] once a report was the same as the one before: it shows the
//! monitor that the guest works, and its reply brings the target even if an interrupt was lost.

use aerostat_abi::statistics::Statistics;

use crate::config::{IDLE_REPORT_PERIOD_NS, REPORT_PERIOD_NS, REPORT_SPACING_NS};
use crate::time::Instant;

/// How much a report is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// No part of the guest has said that the statistics changed.
    None,
    /// The statistics have changed.
    Changed,
    /// A thread waits: for memory that the report asks for, or for the report itself.
    Urgent,
}

/// The last report, and when it was made.
#[derive(Debug)]
pub(super) struct ReportTimer {
    reported: Instant,
    last: Statistics,
    /// The time to the next report if there is no demand for one.
    period_ns: u64,
}

impl ReportTimer {
    /// Returns a timer that counts from boot.
    pub(super) fn new() -> Self {
        Self { reported: Instant::default(), last: Statistics::default(), period_ns: REPORT_PERIOD_NS }
    }

    /// Returns when the next report is due.
    pub(super) fn due_at(&self, demand: Demand) -> Instant {
        match demand {
            Demand::None => self.reported.after(self.period_ns),
            Demand::Changed => self.reported.after(REPORT_SPACING_NS),
            Demand::Urgent => self.reported,
        }
    }

    /// Returns whether a report is due.
    pub(super) fn is_due(&self, demand: Demand, now: Instant) -> bool {
        now >= self.due_at(demand)
    }

    /// Notes that `statistics` are reported now.
    pub(super) fn note_report(&mut self, statistics: &Statistics, now: Instant) {
        self.period_ns = if *statistics == self.last { IDLE_REPORT_PERIOD_NS } else { REPORT_PERIOD_NS };
        self.last = *statistics;
        self.reported = now;
    }
}

#[cfg(test)]
mod tests {
    use aerostat_abi::statistics::Statistics;

    use super::{Demand, ReportTimer};
    use crate::config::{IDLE_REPORT_PERIOD_NS, REPORT_PERIOD_NS, REPORT_SPACING_NS};
    use crate::time::Instant;

    fn idle() -> Statistics {
        Statistics { total_memory_bytes: 1, ..Statistics::default() }
    }

    fn reported_at(nanoseconds: u64) -> ReportTimer {
        let mut timer = ReportTimer::new();
        timer.note_report(&idle(), Instant::from_nanos(nanoseconds));
        timer
    }

    #[test]
    fn changes_are_reported_together() {
        let timer = reported_at(5);
        assert!(!timer.is_due(Demand::Changed, Instant::from_nanos(4 + REPORT_SPACING_NS)));
        assert!(timer.is_due(Demand::Changed, Instant::from_nanos(5 + REPORT_SPACING_NS)));
    }

    #[test]
    fn a_report_that_a_thread_waits_for_is_due_at_once() {
        assert!(reported_at(5).is_due(Demand::Urgent, Instant::from_nanos(5)));
    }

    #[test]
    fn an_idle_guest_reports_less_often_until_something_changes() {
        let mut timer = reported_at(5);
        assert_eq!(timer.due_at(Demand::None), Instant::from_nanos(5 + REPORT_PERIOD_NS));
        timer.note_report(&idle(), Instant::from_nanos(7));
        assert_eq!(timer.due_at(Demand::None), Instant::from_nanos(7 + IDLE_REPORT_PERIOD_NS));
        assert_eq!(timer.due_at(Demand::Changed), Instant::from_nanos(7 + REPORT_SPACING_NS));
        assert!(timer.is_due(Demand::Urgent, Instant::from_nanos(7)));
        let changed = Statistics { minor_faults: 1, ..idle() };
        timer.note_report(&changed, Instant::from_nanos(9));
        assert_eq!(timer.due_at(Demand::None), Instant::from_nanos(9 + REPORT_PERIOD_NS));
    }

    /// A guest that the monitor calls silent after five seconds must have had two chances to
    /// report.
    const _: () = assert!(2 * IDLE_REPORT_PERIOD_NS < 5_000_000_000);
}
