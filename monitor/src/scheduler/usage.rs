//! What is seen of a guest: what its VMM process measured, and what the guest says about itself.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

use super::limits::Limits;

/// A sample of a guest. The counts are what its VMM process measured; only the hints come from the
/// guest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSample {
    /// The largest target that its VMM process may still act on.
    pub allowed: FrameCount,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Host memory that is really behind the guest.
    pub resident: FrameCount,
    /// What the guest last said about itself.
    pub hints: Hints,
}

/// What a guest says about itself, limited to what can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// Nothing yet: the guest is booting.
    None,
    /// Its latest report.
    Report(Usage),
    /// Its latest report, from a guest that has been silent for a while.
    Stale(Usage),
}

/// A guest's use of memory as it reported it. No count exceeds the guest's maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Frames in use by kernel and application, file pages included.
    pub used: FrameCount,
    /// Of these, file pages: they can be dropped and read again.
    pub droppable: FrameCount,
    /// Of the rest, frames that were not accessed for a while.
    pub idle: FrameCount,
    /// The size below which the guest can't shrink: what it has committed and no swap can stand
    /// for.
    pub unshrinkable: FrameCount,
    /// Frames that threads of the guest wait for.
    pub wanted: FrameCount,
}

impl Usage {
    /// Returns the usage in a report, or `None` if the guest has not reported yet.
    ///
    /// A guest may write what it likes: every term saturates, and no result exceeds `limits.max`.
    #[must_use]
    pub fn from_statistics(statistics: &Statistics, limits: Limits) -> Option<Self> {
        if statistics.total_memory_bytes == 0 {
            return None;
        }
        let bounded = |bytes: u64| FrameCount::from_bytes_ceil(bytes).min(limits.max);
        let less = |count: FrameCount, bytes: u64| count.saturating_sub(FrameCount::from_bytes_floor(bytes));
        let size = less(bounded(statistics.total_memory_bytes), statistics.balloon_bytes);
        let used = less(size, statistics.free_memory_bytes);
        let droppable = bounded(statistics.disk_caches_bytes).min(used);
        // Of pages in memory, the two oldest of four classes. The counts include file pages.
        let [.., old, oldest] = statistics.working_set_bytes;
        let idle = less(bounded(old.saturating_add(oldest)), statistics.disk_caches_bytes);
        Some(Self {
            used,
            droppable,
            idle: idle.min(used.saturating_sub(droppable)),
            unshrinkable: less(size, statistics.committable_bytes),
            wanted: bounded(statistics.wanted_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Usage};
    use aerostat_abi::statistics::{Statistics, WORDS};
    use aerostat_abi::units::FrameCount;
    use proptest::{prop_assert, proptest};

    const LIMITS: Limits = Limits { min: FrameCount(512), max: FrameCount(5120) };

    #[test]
    fn usage_is_split_by_what_can_be_done_with_it() {
        let statistics = Statistics {
            total_memory_bytes: 5120 << 12,
            balloon_bytes: 1000 << 12,
            free_memory_bytes: 120 << 12,
            disk_caches_bytes: 1000 << 12,
            working_set_bytes: [500 << 12, 500 << 12, 800 << 12, 700 << 12],
            committable_bytes: 3000 << 12,
            wanted_bytes: 7 << 12,
            ..Statistics::default()
        };
        let expected = Usage {
            used: FrameCount(4000),
            droppable: FrameCount(1000),
            idle: FrameCount(500),
            unshrinkable: FrameCount(1120),
            wanted: FrameCount(7),
        };
        assert_eq!(Usage::from_statistics(&statistics, LIMITS), Some(expected));
    }

    #[test]
    fn a_guest_that_has_not_reported_has_no_usage() {
        assert_eq!(Usage::from_statistics(&Statistics::default(), LIMITS), None);
    }

    proptest! {
        #[test]
        fn no_report_exceeds_the_limits(words: [u64; WORDS]) {
            if let Some(usage) = Usage::from_statistics(&Statistics::decode(&words), LIMITS) {
                let Usage { used, droppable, idle, unshrinkable, wanted } = usage;
                prop_assert!([used, unshrinkable, wanted].iter().all(|count| *count <= LIMITS.max));
                prop_assert!(droppable.saturating_add(idle) <= used);
            }
        }
    }
}
