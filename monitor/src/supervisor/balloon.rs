//! What a guest's balloon did in a run, and what stopped it.

use std::time::Duration;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

use crate::host::BalloonCounters;

/// Totals of a guest's balloon since the start of the run. The VMM process counts the first fields;
/// the guest reports the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalloonTotals {
    /// Memory that the guest inflated its balloon by.
    pub inflated: FrameCount,
    /// Memory that the guest deflated its balloon by.
    pub deflated: FrameCount,
    /// Memory that the host reclaimed while the guest's processor did not run.
    pub host_reclaimed: FrameCount,
    /// Batch entries that were refused, by status. A status that did not occur is left out.
    pub refused_entries: Vec<(EntryStatus, u64)>,
    /// Calls through the balloon port.
    pub calls: u64,
    /// Calls that were delayed because they came too fast.
    pub throttled_calls: u64,
    /// Total delay of these calls.
    pub throttled: Duration,
    /// How often the guest began to use memory beyond its size.
    pub overuse_episodes: u64,
    /// The most memory that the guest used beyond its size.
    pub peak_overuse: FrameCount,
    /// How much of that memory the host released.
    pub reclaimed: FrameCount,
    /// How often the guest began to report a balloon size that was not its own.
    pub disagreements: u64,
    /// How often the driver found no memory to inflate with.
    pub allocation_failures: u64,
    /// Time that the driver spent on inflating.
    pub inflating: Duration,
    /// Time that the driver spent on deflating.
    pub deflating: Duration,
    /// The driver's last activity and its stall reason. Untrusted text.
    pub state: String,
    /// The driver's last error. Untrusted text.
    pub last_error: String,
}

impl BalloonTotals {
    /// Returns the totals in what the VMM process and the guest last published.
    pub(super) fn new(counters: &BalloonCounters, report: &Statistics) -> Self {
        let refused = |status: EntryStatus| (status, counters.refused_entries[usize::from(status.code())]);
        Self {
            inflated: counters.inflated,
            deflated: counters.deflated,
            host_reclaimed: counters.host_reclaimed,
            refused_entries: EntryStatus::ALL.into_iter().map(refused).filter(|&(_, count)| count > 0).collect(),
            calls: counters.calls,
            throttled_calls: counters.throttled_calls,
            throttled: counters.throttled,
            reclaimed: counters.reclaimed,
            allocation_failures: report.balloon_alloc_failures,
            inflating: Duration::from_nanos(report.inflating_ns),
            deflating: Duration::from_nanos(report.deflating_ns),
            state: report.balloon_state.as_str().to_owned(),
            last_error: report.balloon_error.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// Returns the number of refused entries, of all statuses.
    #[must_use]
    pub fn all_refused_entries(&self) -> u64 {
        self.refused_entries.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::BalloonTotals;
    use crate::host::BalloonCounters;
    use aerostat_abi::batch::EntryStatus;
    use aerostat_abi::statistics::{STATUSES, Statistics};
    use aerostat_abi::text::Text;
    use std::time::Duration;

    #[test]
    fn refusals_are_counted_by_reason() {
        let mut counters = BalloonCounters { throttled: Duration::from_nanos(7), ..BalloonCounters::default() };
        counters.refused_entries[usize::from(EntryStatus::NotGranted.code())] = 3;
        counters.refused_entries[usize::from(EntryStatus::HostFailed.code())] = u64::MAX;
        let report = Statistics { balloon_error: Text::new("no answer"), inflating_ns: 9, ..Statistics::default() };
        let totals = BalloonTotals::new(&counters, &report);
        assert_eq!(totals.refused_entries, [(EntryStatus::NotGranted, 3), (EntryStatus::HostFailed, u64::MAX)]);
        assert_eq!(totals.all_refused_entries(), u64::MAX);
        assert_eq!((totals.throttled, totals.inflating), (Duration::from_nanos(7), Duration::from_nanos(9)));
        assert_eq!(totals.last_error, "no answer");
    }

    #[test]
    fn absurd_facts_have_totals() {
        let counters = BalloonCounters {
            refused_entries: [u64::MAX; STATUSES],
            throttled: Duration::MAX,
            ..BalloonCounters::default()
        };
        let totals = BalloonTotals::new(&counters, &Statistics::default());
        assert_eq!(totals.refused_entries.len(), EntryStatus::ALL.len());
    }
}
