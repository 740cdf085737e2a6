//! What a guest's balloon did in a run, and what came in its way.

use std::time::Duration;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::registers::Facts;
use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

/// A guest's balloon, from the start of the run. What the VMM process counts comes first, then what
/// the guest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalloonTotals {
    /// Memory that the guest gave.
    pub inflated: FrameCount,
    /// Memory that it took back.
    pub deflated: FrameCount,
    /// Memory that was taken from it without its processor running.
    pub host_reclaimed: FrameCount,
    /// Batch entries that were not done, by status; those that never happened are left out.
    pub refused_entries: Vec<(EntryStatus, u64)>,
    /// Calls through the balloon port.
    pub calls: u64,
    /// Those that had to wait because they came too fast.
    pub throttled_calls: u64,
    /// How long these waited.
    pub throttled: Duration,
    /// Times that the guest used memory beyond its size.
    pub overuse_episodes: u64,
    /// The most that it was.
    pub peak_overuse: FrameCount,
    /// What of it was taken away again.
    pub reclaimed: FrameCount,
    /// Times that the guest began to report another balloon than it had.
    pub disagreements: u64,
    /// Times that the driver found no memory to give.
    pub allocation_failures: u64,
    /// Time that the driver spent on inflating.
    pub inflating: Duration,
    /// Time that it spent on deflating.
    pub deflating: Duration,
    /// What the driver was about in the end, and what hindered it. Foreign text.
    pub state: String,
    /// The last thing that went wrong with it. Foreign text.
    pub last_error: String,
}

impl BalloonTotals {
    /// The totals in what the VMM process and the guest last said.
    pub(super) fn new(facts: &Facts, report: &Statistics) -> Self {
        let refused = |status: EntryStatus| (status, facts.refused_entries[usize::from(status.code())]);
        Self {
            inflated: facts.inflated,
            deflated: facts.deflated,
            host_reclaimed: facts.host_reclaimed,
            refused_entries: EntryStatus::ALL.into_iter().map(refused).filter(|&(_, count)| count > 0).collect(),
            calls: facts.port_calls,
            throttled_calls: facts.throttled_calls,
            throttled: Duration::from_nanos(facts.throttled_ns),
            reclaimed: facts.reclaimed,
            allocation_failures: report.balloon_alloc_failures,
            inflating: Duration::from_nanos(report.inflating_ns),
            deflating: Duration::from_nanos(report.deflating_ns),
            state: report.balloon_state.as_str().to_owned(),
            last_error: report.balloon_error.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// Entries that were not done, whatever their status.
    #[must_use]
    pub fn all_refused_entries(&self) -> u64 {
        self.refused_entries.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::BalloonTotals;
    use aerostat_abi::batch::EntryStatus;
    use aerostat_abi::registers::Facts;
    use aerostat_abi::statistics::{STATUSES, Statistics};
    use aerostat_abi::text::Text;
    use std::time::Duration;

    #[test]
    fn refusals_are_told_by_reason() {
        let mut facts = Facts { throttled_ns: 7, ..Facts::default() };
        facts.refused_entries[usize::from(EntryStatus::NotGranted.code())] = 3;
        facts.refused_entries[usize::from(EntryStatus::HostFailed.code())] = u64::MAX;
        let report = Statistics { balloon_error: Text::new("no answer"), inflating_ns: 9, ..Statistics::default() };
        let totals = BalloonTotals::new(&facts, &report);
        assert_eq!(totals.refused_entries, [(EntryStatus::NotGranted, 3), (EntryStatus::HostFailed, u64::MAX)]);
        assert_eq!(totals.all_refused_entries(), u64::MAX);
        assert_eq!((totals.throttled, totals.inflating), (Duration::from_nanos(7), Duration::from_nanos(9)));
        assert_eq!(totals.last_error, "no answer");
    }

    #[test]
    fn absurd_facts_have_totals() {
        let facts = Facts { refused_entries: [u64::MAX; STATUSES], throttled_ns: u64::MAX, ..Facts::default() };
        let totals = BalloonTotals::new(&facts, &Statistics::default());
        assert_eq!(totals.refused_entries.len(), EntryStatus::ALL.len());
    }
}
