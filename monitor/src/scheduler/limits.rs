//! A guest's limits, and the samples that the scheduler gets of it.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

/// A guest's number, in the order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub usize);

/// The smallest and the largest size of a guest. The creator of a value has checked that both are
/// whole huge frames and that `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The memory that the guest always keeps.
    pub min: FrameCount,
    /// All the memory its machine has.
    pub max: FrameCount,
}

/// One sample of a guest. The host has measured the counts; only the hints come from the guest
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSample {
    /// The largest target that its VMM process may still act on.
    pub allowed: FrameCount,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Host memory behind the guest.
    pub resident: FrameCount,
    /// The guest's latest report.
    pub hints: Hints,
}

/// What a guest reports of itself, limited to what can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// No report yet: the guest is booting.
    None,
    /// Its latest report.
    Report(Usage),
    /// Its latest report, from a guest that has made no call for a while.
    Stale(Usage),
}

/// A guest's use of memory as it reported it. No count exceeds the maximum in its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Frames in use by kernel and application.
    pub used: FrameCount,
    /// Frames committed to the application, touched or not.
    pub committed: FrameCount,
    /// Frames that threads in the guest wait for.
    pub wanted: FrameCount,
}

impl Usage {
    /// Returns the usage in a report, or `None` where the guest has not reported yet.
    ///
    /// A guest may write anything: every term saturates, and no result exceeds `limits.max`.
    #[must_use]
    pub fn from_statistics(statistics: &Statistics, limits: Limits) -> Option<Self> {
        if statistics.total_memory_bytes == 0 {
            return None;
        }
        let bounded = |bytes: u64| FrameCount::from_bytes_ceil(bytes).min(limits.max);
        let used = bounded(statistics.total_memory_bytes)
            .saturating_sub(FrameCount::from_bytes_floor(statistics.balloon_bytes))
            .saturating_sub(FrameCount::from_bytes_floor(statistics.free_memory_bytes));
        Some(Self { used, committed: bounded(statistics.committed_bytes), wanted: bounded(statistics.wanted_bytes) })
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
    fn usage_is_what_is_neither_free_nor_ballooned() {
        let statistics = Statistics {
            total_memory_bytes: 5120 << 12,
            balloon_bytes: 1000 << 12,
            free_memory_bytes: 120 << 12,
            ..Statistics::default()
        };
        let usage = Usage::from_statistics(&statistics, LIMITS).unwrap();
        assert_eq!(usage.used, FrameCount(4000));
    }

    #[test]
    fn a_guest_that_has_not_reported_has_no_usage() {
        assert_eq!(Usage::from_statistics(&Statistics::default(), LIMITS), None);
    }

    proptest! {
        #[test]
        fn no_report_exceeds_the_limits(words: [u64; WORDS]) {
            if let Some(usage) = Usage::from_statistics(&Statistics::decode(&words), LIMITS) {
                prop_assert!(usage.used <= LIMITS.max && usage.committed <= LIMITS.max && usage.wanted <= LIMITS.max);
            }
        }
    }
}
