//! What a guest under QEMU needs, by the reports of its balloon driver. Pure.
//!
//! *Firm* is what the guest can't do without: its size less what it could allocate without
//! swapping. Free memory alone says nothing, since Linux fills it with pages of files; those count
//! as droppable.
//!
//! Such a guest can't ask for memory. What it grows by between two reports must be there already,
//! or it waits, swaps, or kills a process. So it is left a reserve ([`reserve`]). A guest that has
//! used most of that up counts as one that waits for memory: for half its size, or for the pages
//! that came back meanwhile if that is more, so that one that grows doubles within two reports.
//!
//! *Total memory.* A Linux guest takes ballooned pages out of `MemTotal`, unless the device has
//! deflate-on-oom: then they stay in, and count as used. A guest of ours always takes them out.
//! Which it is shows in the report: a total above the size has the balloon in it.

use aerostat_abi::units::FrameCount;

use super::statistics::BalloonStatistics;
use crate::scheduler::{StalledTime, Usage};

/// What a guest is left besides what it uses: so much, and one frame for so many that it uses.
const RESERVE: FrameCount = FrameCount::from_mib(16);
const RESERVE_DIVISOR: u64 = 8;
/// Below this part of its size, what is available is so little that the guest has used up most of
/// its reserve.
const SCARCE_DIVISOR: u64 = 16;
/// What a guest waits for then: one frame for so many of its size.
const STEP_DIVISOR: u64 = 2;

/// The reports of one guest.
#[derive(Clone, Debug, Default)]
pub(super) struct UsageWatch {
    last: Option<BalloonStatistics>,
    /// The smallest balloon since the report before the latest: what a report that counts the
    /// balloon may have counted.
    balloon: Option<FrameCount>,
    /// Memory that the machine has and the guest's total leaves out: the kernel's own.
    hidden: Option<FrameCount>,
    usage: Option<Usage>,
}

/// What the machine is at the moment of a poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// All memory of the machine.
    pub(super) machine: FrameCount,
    /// Guest size: total memory less balloon.
    pub(super) size: FrameCount,
}

impl Sizes {
    fn balloon(self) -> FrameCount {
        self.machine.saturating_sub(self.size)
    }
}

impl UsageWatch {
    /// Notes the latest report, at a poll that found these sizes.
    pub(super) fn observe(&mut self, report: BalloonStatistics, sizes: Sizes) {
        let balloon = sizes.balloon();
        let counted = self.balloon.map_or(balloon, |earlier| earlier.min(balloon));
        if self.last.is_some_and(|last| last.updated_s == report.updated_s) {
            self.balloon = Some(counted);
            return;
        }
        let is_steady = self.balloon.is_none_or(|earlier| earlier == balloon);
        if let Some(total) = report.total.filter(|_| is_steady) {
            let total = FrameCount::from_bytes_floor(total);
            let all = if total > sizes.size { sizes.machine } else { sizes.size };
            self.hidden = Some(all.saturating_sub(total));
        }
        self.usage = self.usage_by(&report, sizes, counted);
        self.last = Some(report);
        self.balloon = Some(balloon);
    }

    /// Forgets the reports of a guest that was reset.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Returns the latest report.
    pub(super) fn report(&self) -> Option<BalloonStatistics> {
        self.last
    }

    /// Returns what the guest needs; `None` where its reports do not say it.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    fn usage_by(&self, report: &BalloonStatistics, sizes: Sizes, counted: FrameCount) -> Option<Usage> {
        let Sizes { machine, size } = sizes;
        let allocatable = FrameCount::from_bytes_floor(report.allocatable()?);
        let total = FrameCount::from_bytes_ceil(report.total?);
        // The balloon as the report may have counted it.
        let in_total = if total > size { counted } else { FrameCount::ZERO };
        let hidden = self.hidden.unwrap_or_default();
        let firm = total.saturating_sub(in_total).saturating_add(hidden).saturating_sub(allocatable).min(machine);
        let free = FrameCount::from_bytes_floor(report.free.unwrap_or_default());
        let caches = FrameCount::from_bytes_floor(report.caches.unwrap_or_default());
        let droppable = caches.min(allocatable.saturating_sub(free)).min(machine.saturating_sub(firm));
        let firm = firm.saturating_add(reserve(firm)).min(machine.saturating_sub(droppable));
        Some(Usage {
            used: firm.saturating_add(droppable),
            droppable,
            idle: FrameCount::ZERO,
            // A target below what the guest uses makes it swap or kill.
            unshrinkable: FrameCount::ZERO,
            wanted: self.wanted(report, size, allocatable).min(machine),
            evicted: FrameCount::ZERO,
            restored: 0,
            stalled: StalledTime::default(),
        })
    }

    /// Returns what a guest of this size waits for that could allocate `allocatable`.
    fn wanted(&self, report: &BalloonStatistics, size: FrameCount, allocatable: FrameCount) -> FrameCount {
        if allocatable.0 >= size.0 / SCARCE_DIVISOR {
            return FrameCount::ZERO;
        }
        let step = FrameCount(size.0 / STEP_DIVISOR);
        let Some(last) = &self.last else { return step };
        // Counts that fall are those of a guest that was reset.
        let since =
            |now: Option<u64>, before: Option<u64>| now.zip(before).map_or(0, |(now, then)| now.saturating_sub(then));
        let swapped_in = FrameCount::from_bytes_ceil(since(report.swap_in, last.swap_in));
        let faults = FrameCount(since(report.major_faults, last.major_faults));
        swapped_in.max(faults).max(step)
    }
}

/// Returns what a guest is left to grow into that uses `firm`.
fn reserve(firm: FrameCount) -> FrameCount {
    RESERVE.saturating_add(FrameCount(firm.0 / RESERVE_DIVISOR))
}

#[cfg(test)]
mod tests {
    use super::{BalloonStatistics, Sizes, UsageWatch};
    use aerostat_abi::units::FrameCount;
    use proptest::{option, prop_assert, proptest};

    const fn mib(mib: u64) -> FrameCount {
        FrameCount::from_mib(mib)
    }

    /// A report of (total, free, available, caches) in MiB.
    fn report(updated_s: u64, [total, free, available, caches]: [u64; 4]) -> BalloonStatistics {
        let bytes = |mib: u64| Some(mib << 20);
        BalloonStatistics {
            updated_s,
            total: bytes(total),
            free: bytes(free),
            available: bytes(available),
            caches: bytes(caches),
            swap_in: Some(0),
            swap_out: Some(0),
            major_faults: Some(0),
            minor_faults: Some(0),
        }
    }

    fn sizes(size: u64) -> Sizes {
        Sizes { machine: mib(1024), size: mib(size) }
    }

    /// What is used without the reserve, and the droppable part of it, in MiB.
    fn parts(watch: &UsageWatch) -> (u64, u64) {
        let usage = watch.usage().unwrap();
        let firm = usage.used.saturating_sub(usage.droppable).saturating_sub(mib(16)).0;
        ((firm * 8).div_ceil(9) >> 8, usage.droppable.mib())
    }

    #[test]
    fn caches_are_droppable_and_the_rest_of_what_is_not_available_is_firm() {
        let mut watch = UsageWatch::default();
        // 40 MiB of the machine are the kernel's own.
        watch.observe(report(1, [984, 100, 700, 620]), sizes(1024));
        assert_eq!(parts(&watch), (324, 600), "of the caches 20 MiB are not available");
    }

    #[test]
    fn a_balloon_is_in_the_total_or_not() {
        let mut watch = UsageWatch::default();
        watch.observe(report(1, [472, 100, 200, 120]), sizes(512));
        assert_eq!(parts(&watch), (312, 100), "Linux without deflate-on-oom");
        let mut watch = UsageWatch::default();
        watch.observe(report(1, [984, 100, 200, 120]), sizes(512));
        assert_eq!(parts(&watch), (312, 100), "Linux with deflate-on-oom");
        let mut watch = UsageWatch::default();
        watch.observe(report(1, [512, 200, 200, 0]), sizes(512));
        assert_eq!(parts(&watch), (312, 0), "a guest of ours");
    }

    #[test]
    fn a_balloon_that_moved_since_the_report_is_not_taken_for_use_that_is_gone() {
        let mut watch = UsageWatch::default();
        watch.observe(report(1, [984, 684, 684, 0]), sizes(1024));
        assert_eq!(parts(&watch), (340, 0));
        // The report counted a balloon that was smaller than it is now.
        watch.observe(report(2, [984, 584, 584, 0]), sizes(600));
        assert!(parts(&watch).0 >= 340, "{:?}", parts(&watch));
        watch.observe(report(3, [984, 260, 260, 0]), sizes(600));
        assert_eq!(parts(&watch), (340, 0));
    }

    #[test]
    fn a_report_that_says_too_little_is_no_usage() {
        let mut watch = UsageWatch::default();
        let whole = report(1, [984, 100, 700, 620]);
        for lacking in [
            BalloonStatistics { total: None, ..whole },
            BalloonStatistics { available: None, free: None, ..whole },
            BalloonStatistics { available: None, caches: None, ..whole },
        ] {
            watch.forget();
            watch.observe(lacking, sizes(1024));
            assert_eq!(watch.usage(), None, "{lacking:?}");
        }
        watch.forget();
        watch.observe(BalloonStatistics { free: None, caches: None, ..whole }, sizes(1024));
        assert_eq!(parts(&watch), (324, 0), "what is available is enough");
    }

    #[test]
    fn a_guest_with_little_available_waits_for_a_step_or_for_what_came_back() {
        let wanted = |available: u64, faults: u64, swapped_in_mib: u64| {
            let mut watch = UsageWatch::default();
            watch.observe(report(1, [480, 10, available, 10]), sizes(512));
            let later = BalloonStatistics {
                major_faults: Some(faults),
                swap_in: Some(swapped_in_mib << 20),
                ..report(2, [480, 10, available, 10])
            };
            watch.observe(later, sizes(512));
            watch.usage().unwrap().wanted
        };
        assert_eq!(wanted(20, 256, 0), mib(256));
        assert_eq!(wanted(20, 256, 300), mib(300));
        assert_eq!(wanted(20, 1 << 40, 0), mib(1024), "no more than the machine has");
        assert_eq!(wanted(200, 256, 3), FrameCount::ZERO, "it reads files for the first time");
    }

    proptest! {
        #[test]
        fn no_report_exceeds_the_machine(
            reports in proptest::collection::vec(
                (option::of(proptest::num::u64::ANY), option::of(proptest::num::u64::ANY),
                 option::of(proptest::num::u64::ANY), option::of(proptest::num::u64::ANY), 0_u64..2000),
                1..8,
            ),
        ) {
            let mut watch = UsageWatch::default();
            for (number, (total, free, available, caches, size)) in reports.into_iter().enumerate() {
                let report = BalloonStatistics {
                    updated_s: number as u64 + 1, total, free, available, caches, swap_in: total, major_faults: free,
                    ..BalloonStatistics::default()
                };
                watch.observe(report, sizes(size));
                if let Some(usage) = watch.usage() {
                    prop_assert!(usage.used <= mib(1024) && usage.droppable <= usage.used);
                    prop_assert!(usage.wanted <= mib(1024));
                }
            }
        }
    }
}
