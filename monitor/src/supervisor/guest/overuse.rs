//! Detects a guest that uses memory beyond its size. Pure.
//!
//! A guest can write to frames that are in its balloon: nothing on the host prevents it, and every
//! such frame becomes resident again. The scheduler charges the guest for it, so that memory is not
//! granted to another guest. But other guests may need it, and a kernel that writes to ballooned
//! frames is broken or hostile. The fleet file says what happens to such a guest
//! ([`OveruseRule`](crate::fleet::OveruseRule)).
//!
//! A *sample* is a size and a resident memory that belong together. The two are not read at one
//! moment: resident memory is measured by the supervisor at intervals (`super::accepted`), so a
//! single poll may pair an old measurement with a new size. Therefore several samples in a row must
//! show the excess, and polls that may have seen the same measurement count as one.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;
use crate::supervisor::episodes::Episodes;

/// The excess of resident memory over the size that is allowed for every size: the VMM process's
/// own memory, which the measurement includes, and what a guest's disks write into frames that have
/// just been ballooned. Huge pages of the host add nothing: none is behind a huge frame of which a
/// part is ballooned (`vmm::page_sizes`).
const TOLERANCE: FrameCount = FrameCount::from_mib(8);
/// The allowed excess that grows with the size: one frame for so many. Page tables and the VMM
/// process's frame map grow with the size.
const TOLERANCE_DIVISOR: u64 = 50;
/// Samples in a row that must show the excess.
const SAMPLES: u32 = 3;
/// Time between samples. It is long enough for each sample to have a measurement of its own: while
/// memory changes it is measured more often (`super::accepted`).
const SAMPLE_PACE: Duration = Duration::from_millis(50);

/// The excess in a guest's latest samples.
#[derive(Debug, Default)]
pub(super) struct Overuse {
    in_a_row: u32,
    last_sample: Moment,
    episodes: Episodes,
    peak: FrameCount,
}

/// The finding that a guest uses memory beyond its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How much memory the guest uses beyond its size.
    pub(super) excess: FrameCount,
    /// Whether this poll is a new sample, so that a response to an earlier one has had time to act.
    pub(super) is_new_sample: bool,
    /// If this is to be reported: how often an excess began since the last report.
    pub(super) told: Option<u64>,
}

impl Overuse {
    /// Records one poll of a guest; returns what the guest is found to use beyond its size.
    ///
    /// A size of zero means that the machine has not published one.
    pub(super) fn observe(&mut self, size: FrameCount, resident: FrameCount, now: Moment) -> Option<Finding> {
        let is_new_sample = self.count_sample(size, resident, now);
        let is_found = self.in_a_row >= SAMPLES;
        let told = self.episodes.observe(is_found, now);
        let excess = resident.saturating_sub(size);
        is_found.then(|| {
            self.peak = self.peak.max(excess);
            Finding { excess, is_new_sample, told }
        })
    }

    /// Returns whether the poll is one more sample that shows an excess.
    fn count_sample(&mut self, size: FrameCount, resident: FrameCount, now: Moment) -> bool {
        let tolerated = size.saturating_add(TOLERANCE).saturating_add(FrameCount(size.0 / TOLERANCE_DIVISOR));
        if size == FrameCount::ZERO || resident <= tolerated {
            self.in_a_row = 0;
            return false;
        }
        let is_new = self.in_a_row == 0 || now.since(self.last_sample) >= SAMPLE_PACE;
        if is_new {
            self.in_a_row = self.in_a_row.saturating_add(1);
            self.last_sample = now;
        }
        is_new
    }

    /// Returns how often an excess began.
    pub(super) fn episodes(&self) -> u64 {
        self.episodes.count()
    }

    /// Returns the largest excess that was found.
    pub(super) fn peak(&self) -> FrameCount {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::Overuse;
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;
    use proptest::{collection::vec, prop_assert, proptest};

    const SIZE: FrameCount = FrameCount::from_mib(100);

    /// Returns what is found at polls of (milliseconds, MiB resident), in order.
    fn found(polls: &[(u64, u64)]) -> Vec<Option<u64>> {
        let mut overuse = Overuse::default();
        let poll = |&(ms, mib): &(u64, u64)| {
            let finding = overuse.observe(SIZE, FrameCount::from_mib(mib), Moment::from_ns(ms * 1_000_000));
            finding.map(|finding| finding.excess.mib())
        };
        polls.iter().map(poll).collect()
    }

    #[test]
    fn three_samples_in_a_row_are_too_many() {
        assert_eq!(found(&[(1, 140), (51, 140), (101, 141)]), [None, None, Some(41)]);
    }

    #[test]
    fn polls_of_one_measurement_are_one_sample() {
        assert_eq!(found(&[(1, 140), (2, 140), (3, 140), (4, 140), (50, 140)]), [None; 5]);
    }

    #[test]
    fn a_sample_within_the_tolerance_begins_anew() {
        assert_eq!(found(&[(1, 140), (51, 140), (101, 110), (151, 140), (201, 140), (251, 140)])[..5], [None; 5]);
    }

    #[test]
    fn the_tolerance_is_eight_mebibytes_and_a_fiftieth() {
        assert_eq!(found(&[(1, 110), (51, 110), (101, 110)]), [None; 3]);
        assert_eq!(found(&[(1, 111), (51, 111), (101, 111)]), [None, None, Some(11)]);
    }

    #[test]
    fn an_episode_is_reported_once_and_each_sample_may_be_acted_on() {
        let mut overuse = Overuse::default();
        let mut poll = |ms: u64, mib| overuse.observe(SIZE, FrameCount::from_mib(mib), Moment::from_ns(ms * 1_000_000));
        let found: Vec<_> = (0..10).filter_map(|number| poll(1 + number * 25, 140 - number)).collect();
        let acted_on: Vec<_> = found.iter().map(|finding| (finding.is_new_sample, finding.told)).collect();
        let (new, old) = ((true, None), (false, None));
        assert_eq!(acted_on, [(true, Some(1)), old, new, old, new, old]);
        assert_eq!((overuse.episodes(), overuse.peak().mib()), (1, 36));
    }

    #[test]
    fn a_machine_without_a_size_yet_is_not_judged() {
        let mut overuse = Overuse::default();
        for ms in [1, 51, 101, 151] {
            assert_eq!(overuse.observe(FrameCount::ZERO, SIZE, Moment::from_ns(ms * 1_000_000)), None);
        }
    }

    proptest! {
        /// A guest is never reported for resident memory that is at most the size which it was
        /// allowed at some time in the last 90 ms.
        #[test]
        fn a_late_measurement_is_tolerated(sizes in vec(0_u64..1000, 1..200), lag in 0_usize..5) {
            let mut overuse = Overuse::default();
            // The size changes every 20 polls, which are 20 ms apart; measurements are up to four
            // polls old.
            let size_at = |poll: usize| FrameCount::from_mib(sizes[poll / 20]);
            for poll in 0..sizes.len() * 20 {
                let resident = size_at(poll.saturating_sub(lag)).max(size_at(poll));
                let now = Moment::from_ns(1 + poll as u64 * 20_000_000);
                prop_assert!(overuse.observe(size_at(poll), resident, now).is_none());
            }
        }
    }
}
