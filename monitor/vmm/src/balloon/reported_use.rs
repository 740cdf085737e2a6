//! Which reports of a guest the supervisor is told of at once: those by which the guest's need is
//! another than by the last one that it was told of. A supervisor whose guests are at rest polls
//! seldom, and it must not be late for a guest that begins to need memory, or that frees memory
//! which another one waits for. Pure.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

/// Smaller changes wait for the next poll: the scheduler does not act on them either.
const NOTICEABLE: FrameCount = FrameCount::from_mib(4);

/// What the guest used by the last report that the supervisor was told of: all of it, the part
/// that is no file page, and what it can't give up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReportedUse([FrameCount; 3]);

impl ReportedUse {
    /// Returns whether the supervisor is to be told of this report, and takes it over then.
    pub(super) fn take_change(&mut self, report: &Statistics) -> bool {
        let latest = Self::of(report);
        let is_noticeable = |(latest, told): (FrameCount, FrameCount)| latest.0.abs_diff(told.0) >= NOTICEABLE.0;
        let has_changed = latest.0.into_iter().zip(self.0).any(is_noticeable);
        if has_changed {
            *self = latest;
        }
        has_changed
    }

    fn of(report: &Statistics) -> Self {
        let size = report.total_memory_bytes.saturating_sub(report.balloon_bytes);
        let used = size.saturating_sub(report.free_memory_bytes);
        let parts =
            [used, used.saturating_sub(report.disk_caches_bytes), size.saturating_sub(report.committable_bytes)];
        Self(parts.map(FrameCount::from_bytes_floor))
    }
}

#[cfg(test)]
mod tests {
    use super::ReportedUse;
    use aerostat_abi::statistics::Statistics;

    /// A report of a guest of 64 MiB with a balloon of 32.
    fn report(free: u64, caches: u64, committable: u64) -> Statistics {
        Statistics {
            total_memory_bytes: 64 << 20,
            balloon_bytes: 32 << 20,
            free_memory_bytes: free << 20,
            disk_caches_bytes: caches << 20,
            committable_bytes: committable << 20,
            ..Statistics::default()
        }
    }

    #[test]
    fn a_report_is_passed_on_once_it_differs_from_the_last_that_was() {
        let mut reported = ReportedUse::default();
        assert!(reported.take_change(&report(20, 0, 20)), "the first one");
        assert!(!reported.take_change(&report(20, 0, 20)));
        assert!(!reported.take_change(&report(17, 0, 20)), "3 MiB more in use");
        assert!(reported.take_change(&report(16, 0, 20)), "4 MiB more in use, a little at a time");
        assert!(reported.take_change(&report(20, 0, 20)), "4 MiB less");
        assert!(reported.take_change(&report(20, 4, 20)), "file pages instead");
        assert!(reported.take_change(&report(20, 4, 12)), "memory that was committed and not touched");
    }

    #[test]
    fn another_balloon_is_no_other_need() {
        let mut reported = ReportedUse::default();
        assert!(reported.take_change(&report(20, 0, 20)));
        let smaller = Statistics { balloon_bytes: 40 << 20, ..report(12, 0, 12) };
        assert!(!reported.take_change(&smaller));
    }

    #[test]
    fn a_report_without_sense_changes_nothing_else() {
        let mut reported = ReportedUse::default();
        let senseless =
            Statistics { free_memory_bytes: u64::MAX, committable_bytes: u64::MAX, ..Statistics::default() };
        assert!(!reported.take_change(&senseless));
        assert!(reported.take_change(&report(20, 0, 20)));
    }
}
