//! What a guest is entitled to, and what the scheduler sees of it.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

/// A guest, in the order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub usize);

/// The sizes between which a guest lives. Whoever builds one has checked that both are whole huge
/// frames and `min <= max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the guest always keeps.
    pub min: FrameCount,
    /// All the memory its machine has.
    pub max: FrameCount,
}

/// One look at a guest. The counts are what its VMM process measured; only the hints come from the
/// guest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSample {
    /// The largest target that its VMM process may still act on.
    pub allowed: FrameCount,
    /// Guest size: total memory less balloon.
    pub size: FrameCount,
    /// Host memory really behind the guest.
    pub resident: FrameCount,
    /// What the guest last said about itself.
    pub hints: Hints,
}

/// What a guest says about itself, bounded by what can be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// Nothing yet: the guest is booting.
    None,
    /// Its latest report.
    Report(Usage),
    /// Its latest report, from a guest that has not been heard of for a while.
    Stale(Usage),
}

/// A guest's use of memory as it reported it. No count exceeds the limits's maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Frames in use by kernel and application.
    pub used: FrameCount,
    /// Frames committed to the application, touched or not.
    pub committed: FrameCount,
    /// Frames that somebody in the guest waits for.
    pub wanted: FrameCount,
}

impl Usage {
    /// The usage in a report, or `None` where the guest has not reported yet.
    ///
    /// A guest may write what it likes: every term saturates, and no result exceeds `limits.max`.
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
        fn no_report_exceeds_the_contract(words: [u64; WORDS]) {
            if let Some(usage) = Usage::from_statistics(&Statistics::decode(&words), LIMITS) {
                prop_assert!(usage.used <= LIMITS.max && usage.committed <= LIMITS.max && usage.wanted <= LIMITS.max);
            }
        }
    }
}
