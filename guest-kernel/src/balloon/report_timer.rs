//! When the guest reports to its monitor. Pure: the time is passed in.
//!
//! A report costs a call and the collection of all statistics. So changes are reported together, at
//! most once in [`REPORT_SPACING_NS`]. A report that a thread waits for is made at once. Without
//! any change a report is due after [`BALLOON_PERIOD_NS`]: it shows the monitor that the guest
//! works, and its reply brings the target even if an interrupt was lost.

use crate::config::{BALLOON_PERIOD_NS, REPORT_SPACING_NS};
use crate::time::Instant;

/// How much a report is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing that the guest reports has changed.
    Unchanged,
    /// The statistics have changed.
    Changed,
    /// A thread waits: for memory that the report asks for, or for the report itself.
    Urgent,
}

/// The time of the last report.
#[derive(Debug, Default)]
pub(super) struct ReportTimer {
    reported: Instant,
}

impl ReportTimer {
    /// Returns when the next report is due.
    pub(super) fn due_at(&self, demand: Demand) -> Instant {
        match demand {
            Demand::Unchanged => self.reported.after(BALLOON_PERIOD_NS),
            Demand::Changed => self.reported.after(REPORT_SPACING_NS),
            Demand::Urgent => self.reported,
        }
    }

    /// Returns whether a report is due.
    pub(super) fn is_due(&self, demand: Demand, now: Instant) -> bool {
        now >= self.due_at(demand)
    }

    /// Notes that a report is made.
    pub(super) fn note_report(&mut self, now: Instant) {
        self.reported = now;
    }
}

#[cfg(test)]
mod tests {
    use super::{Demand, ReportTimer};
    use crate::config::{BALLOON_PERIOD_NS, REPORT_SPACING_NS};
    use crate::time::Instant;

    fn reported_at(nanoseconds: u64) -> ReportTimer {
        let mut timer = ReportTimer::default();
        timer.note_report(Instant::from_nanos(nanoseconds));
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
    fn a_guest_without_changes_reports_once_in_a_period() {
        let timer = reported_at(5);
        assert_eq!(timer.due_at(Demand::Unchanged), Instant::from_nanos(5 + BALLOON_PERIOD_NS));
        assert!(!timer.is_due(Demand::Unchanged, Instant::from_nanos(4 + BALLOON_PERIOD_NS)));
    }
}
