//! What is negotiated with a balloon device, and the numbers of its queues. Pure.

use core::fmt;

/// A set of features, a bit each (virtio 1.2, 5.5.3 and 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features(pub(super) u64);

impl Features {
    /// The host must be told before frames that leave the balloon are used.
    pub(crate) const MUST_TELL_HOST: Self = Self(1 << 0);
    /// The host can ask for statistics.
    pub(crate) const STATS_VQ: Self = Self(1 << 1);
    /// The guest may deflate the balloon beyond the host's wish rather than fail for lack of
    /// memory.
    pub(crate) const DEFLATE_ON_OOM: Self = Self(1 << 2);
    /// The host can ask which memory is free, so that it need not be migrated.
    pub(crate) const FREE_PAGE_HINT: Self = Self(1 << 3);
    /// The host takes the memory behind free frames that are reported to it.
    pub(crate) const PAGE_REPORTING: Self = Self(1 << 5);

    /// What this driver uses of what a device may offer.
    ///
    /// `PAGE_POISON` (bit 4) is not among it: a driver should refuse it unless it writes the poison
    /// to all pages that come back (5.5.3.1), and this kernel expects no contents of them.
    /// `EVENT_IDX` and `INDIRECT_DESC` are not either.
    const USED: [(Self, &str); 5] = [
        (Self::MUST_TELL_HOST, "must-tell-host"),
        (Self::STATS_VQ, "statistics"),
        (Self::DEFLATE_ON_OOM, "deflate-on-oom"),
        (Self::FREE_PAGE_HINT, "free-page-hint"),
        (Self::PAGE_REPORTING, "free-page-reporting"),
    ];

    /// Returns whether all features of `other` are in this set.
    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the features to accept where a device offers them.
    pub(super) fn wanted() -> Self {
        Self(Self::USED.iter().fold(0, |all, (feature, _)| all | feature.0))
    }
}

impl fmt::Display for Features {
    /// Writes the names of the features that were negotiated, without that of the version.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::USED.iter().filter(|(feature, _)| self.contains(*feature)).map(|(_, name)| name);
        let Some(first) = names.next() else { return f.write_str("no features") };
        write!(f, "features {first}")?;
        names.try_for_each(|name| write!(f, ", {name}"))
    }
}

/// The numbers of a device's queues; `None` for one that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueNumbers {
    pub(super) inflate: u16,
    pub(super) deflate: u16,
    pub(super) statistics: Option<u16>,
    pub(super) hinting: Option<u16>,
    pub(super) reporting: Option<u16>,
}

impl QueueNumbers {
    /// Returns the numbers for a device that offers these features.
    ///
    /// The standard gives each queue a fixed number. Devices and Linux number the queues that there
    /// are without gaps, in this order (QEMU: `virtio_balloon_device_realize`), so a queue's number
    /// depends on the features before it. A device makes its queues before it knows what a driver
    /// accepts: what it offers decides.
    pub(super) fn of(offered: Features) -> Self {
        let mut next = 2;
        let mut number = |feature| {
            offered.contains(feature).then(|| {
                next += 1;
                next - 1
            })
        };
        let statistics = number(Features::STATS_VQ);
        let hinting = number(Features::FREE_PAGE_HINT);
        let reporting = number(Features::PAGE_REPORTING);
        Self { inflate: 0, deflate: 1, statistics, hinting, reporting }
    }

    /// Returns how many queues the device has.
    pub(super) fn count(self) -> u16 {
        let others = [self.statistics, self.hinting, self.reporting];
        others.into_iter().flatten().map(|number| number + 1).max().unwrap_or(2)
    }
}

#[cfg(test)]
mod tests {
    use super::{Features, QueueNumbers};

    fn set(features: &[Features]) -> Features {
        Features(features.iter().fold(0, |all, feature| all | feature.0))
    }

    #[test]
    fn queues_are_numbered_without_gaps() {
        let (stats, hint, report) = (Features::STATS_VQ, Features::FREE_PAGE_HINT, Features::PAGE_REPORTING);
        let table = [
            (&[][..], (None, None, None)),
            (&[stats], (Some(2), None, None)),
            (&[hint], (None, Some(2), None)),
            (&[report], (None, None, Some(2))),
            (&[stats, hint], (Some(2), Some(3), None)),
            (&[stats, report], (Some(2), None, Some(3))),
            (&[hint, report], (None, Some(2), Some(3))),
            (&[stats, hint, report], (Some(2), Some(3), Some(4))),
        ];
        for (features, (statistics, hinting, reporting)) in table {
            let others = [Features::MUST_TELL_HOST, Features::DEFLATE_ON_OOM, Features(1 << 4)];
            for offered in [set(features), Features(set(features).0 | set(&others).0)] {
                let expected = QueueNumbers { inflate: 0, deflate: 1, statistics, hinting, reporting };
                assert_eq!(QueueNumbers::of(offered), expected, "{offered}");
                assert_eq!(usize::from(expected.count()), 2 + features.len());
            }
        }
    }

    #[test]
    fn what_is_not_used_is_not_accepted() {
        for bit in [4, 6, 28, 29, 33, 34, 35, 38] {
            assert_eq!(Features::wanted().0 & 1 << bit, 0, "feature {bit}");
        }
    }

    #[test]
    fn features_are_named() {
        assert_eq!(set(&[]).to_string(), "no features");
        let some = set(&[Features::STATS_VQ, Features::PAGE_REPORTING]);
        assert_eq!(some.to_string(), "features statistics, free-page-reporting");
    }
}
