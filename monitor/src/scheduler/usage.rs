//! What is seen of a guest: what its VMM process measured, and what the guest says about itself.

use std::time::Duration;

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

use super::enforcement::Means;
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
    /// What the host can do if the guest ignores its target.
    pub control: Control,
}

/// The host's control of a guest whatever the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The largest limit of its resident memory that its process may still act on; `None` where it
    /// may act on none.
    pub limit: Option<FrameCount>,
    /// Whether its process acts on what it was told last.
    pub acknowledgement: Acknowledgement,
    /// Time since the sample before in which the guest could run.
    pub could_run: Duration,
    /// What can be done.
    pub means: Means,
}

/// Whether a guest's process acts on what it was told last: its target, and the limit of its
/// resident memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It has acknowledged both.
    #[default]
    Given,
    /// It has not yet.
    Awaited,
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
    /// Nothing, now and later: it keeps its size.
    FixedSize,
}

/// A guest's use of memory as it reported it. No count exceeds the guest's maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Frames in use by kernel and application, file pages included.
    pub used: FrameCount,
    /// Of these, file pages: they can be dropped and read again.
    pub droppable: FrameCount,
    /// Of the rest, frames that were not accessed for a while and that the guest could move out.
    /// Idle memory that can't go anywhere is of no use to others, so it is not taxed.
    pub idle: FrameCount,
    /// The size below which the guest can't shrink: what it has committed and no swap can stand
    /// for.
    pub unshrinkable: FrameCount,
    /// Frames that threads of the guest wait for.
    pub wanted: FrameCount,
    /// Frames that evicted pages would take in memory.
    pub evicted: FrameCount,
    /// Evicted pages that were restored, since boot: a count that only grows, and no limit bounds.
    pub restored: u64,
    /// The recent part of time in which a thread waited for memory.
    pub stalled: StalledTime,
}

/// A part of time in which at least one thread of a guest waited for memory, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StalledTime(u16);

impl StalledTime {
    const ALL: u16 = 1000;

    /// Returns the part in a guest's report; all of the time if it claims more.
    #[must_use]
    pub fn from_per_mille(per_mille: u64) -> Self {
        Self(u16::try_from(per_mille).unwrap_or(Self::ALL).min(Self::ALL))
    }

    /// Returns the rest of the time, from 0 to 1.
    pub(super) fn rest(self) -> f64 {
        f64::from(Self::ALL - self.0) / f64::from(Self::ALL)
    }
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
        let unshrinkable = less(size, statistics.committable_bytes);
        let movable = used.saturating_sub(droppable.max(unshrinkable));
        let stored = statistics.zswapped_bytes.saturating_add(statistics.swapped_bytes);
        let evicted = FrameCount::from_bytes_ceil(stored.saturating_sub(statistics.zswap_bytes));
        Some(Self {
            used,
            droppable,
            idle: idle.min(movable),
            unshrinkable,
            wanted: bounded(statistics.wanted_bytes),
            evicted: evicted.min(limits.max.saturating_sub(used)),
            restored: statistics.restores,
            stalled: StalledTime::from_per_mille(statistics.pressure_per_mille),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, StalledTime, Usage};
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
            zswapped_bytes: 600 << 12,
            zswap_bytes: 200 << 12,
            swapped_bytes: 300 << 12,
            restores: 99,
            pressure_per_mille: 250,
            ..Statistics::default()
        };
        let expected = Usage {
            used: FrameCount(4000),
            droppable: FrameCount(1000),
            idle: FrameCount(500),
            unshrinkable: FrameCount(1120),
            wanted: FrameCount(7),
            evicted: FrameCount(700),
            restored: 99,
            stalled: StalledTime(250),
        };
        assert_eq!(Usage::from_statistics(&statistics, LIMITS), Some(expected));
    }

    #[test]
    fn idle_memory_counts_as_far_as_the_guest_could_move_it_out() {
        let idle_with = |committable: u64| {
            let statistics = Statistics {
                total_memory_bytes: 5000 << 12,
                free_memory_bytes: 1000 << 12,
                working_set_bytes: [1000 << 12, 0, 0, 3000 << 12],
                committable_bytes: committable << 12,
                ..Statistics::default()
            };
            Usage::from_statistics(&statistics, LIMITS).unwrap().idle
        };
        assert_eq!(idle_with(900), FrameCount::ZERO, "without swap");
        assert_eq!(idle_with(3000), FrameCount(2000), "swap has room for that much");
        assert_eq!(idle_with(9000), FrameCount(3000));
    }

    #[test]
    fn a_guest_that_has_not_reported_has_no_usage() {
        assert_eq!(Usage::from_statistics(&Statistics::default(), LIMITS), None);
    }

    proptest! {
        #[test]
        fn no_report_exceeds_the_limits(words: [u64; WORDS]) {
            if let Some(usage) = Usage::from_statistics(&Statistics::decode(&words), LIMITS) {
                let Usage { used, droppable, idle, unshrinkable, wanted, evicted, stalled, .. } = usage;
                prop_assert!([used, unshrinkable, wanted].iter().all(|count| *count <= LIMITS.max));
                prop_assert!(used.saturating_add(evicted) <= LIMITS.max);
                prop_assert!((0.0..=1.0).contains(&stalled.rest()));
                prop_assert!(droppable.saturating_add(idle) <= used);
            }
        }
    }
}
