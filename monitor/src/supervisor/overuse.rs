//! When a guest uses memory beyond its size. Pure.
//!
//! A guest can write to frames that are in its balloon: nothing on the host stops it, and every
//! such frame becomes resident again. The scheduler charges the guest for it, so nobody is
//! committed that memory; but others may need it, and a kernel that writes to what it gave away is
//! broken or hostile. What becomes of it the fleet file says
//! ([`OveruseRule`](crate::fleet::OveruseRule)).
//!
//! A *sample* is a size and a resident memory that belong together. The two are not read at one
//! moment: resident memory is measured by the supervisor at intervals (`super::observation`), so a
//! single look may pair an old measure with a new size. Therefore several samples in a row must
//! show the excess, and looks that may have seen the same measure count as one.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::episodes::Episodes;
use crate::clock::Moment;

/// What resident memory may exceed the size by, whatever the size: the VMM process's own memory,
/// which its measure includes, and what a guest's disks bring into frames that it has just given.
/// Huge pages of the host add nothing: none is behind a huge frame of which a part is given
/// (`vmm::page_sizes`).
const TOLERANCE: FrameCount = FrameCount::from_mib(8);
/// The same as a part of the size: one frame for so many. Page tables and the VMM's map of frames
/// grow with the size.
const TOLERANCE_DIVISOR: u64 = 50;
/// Samples in a row that must show the excess.
const SAMPLES: u32 = 3;
/// Time between samples, so that each has a measure of its own: while memory changes it is measured
/// more often (`super::observation`).
const SAMPLE_PACE: Duration = Duration::from_millis(50);

/// The excess in a guest's latest samples.
#[derive(Debug, Default)]
pub(super) struct Overuse {
    in_a_row: u32,
    last_sample: Moment,
    episodes: Episodes,
    peak: FrameCount,
}

/// A guest is found to use memory beyond its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How much.
    pub(super) excess: FrameCount,
    /// This look is a sample of its own; what was done about an earlier one has had its time.
    pub(super) is_new_sample: bool,
    /// To be told of: how often it began since it last was.
    pub(super) told: Option<u64>,
}

impl Overuse {
    /// Takes a look at a guest in; returns what it is found to use beyond its size.
    ///
    /// A size of zero is that of a machine which has not published any.
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

    /// Says whether the look is one more sample that shows an excess.
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

    /// Times that it began.
    pub(super) fn episodes(&self) -> u64 {
        self.episodes.count()
    }

    /// The most that was found.
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

    /// What is found at looks of (milliseconds, MiB resident), in order.
    fn found(looks: &[(u64, u64)]) -> Vec<Option<u64>> {
        let mut overuse = Overuse::default();
        let look = |&(ms, mib): &(u64, u64)| {
            let finding = overuse.observe(SIZE, FrameCount::from_mib(mib), Moment::from_ns(ms * 1_000_000));
            finding.map(|finding| finding.excess.mib())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn three_samples_in_a_row_are_too_many() {
        assert_eq!(found(&[(1, 140), (51, 140), (101, 141)]), [None, None, Some(41)]);
    }

    #[test]
    fn looks_at_one_measure_are_one_sample() {
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
    fn an_episode_is_told_once_and_each_sample_may_be_acted_on() {
        let mut overuse = Overuse::default();
        let mut look = |ms: u64, mib| overuse.observe(SIZE, FrameCount::from_mib(mib), Moment::from_ns(ms * 1_000_000));
        let found: Vec<_> = (0..10).filter_map(|look_| look(1 + look_ * 25, 140 - look_)).collect();
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
        /// Resident memory that is at most what the guest had the right to at some time in the last
        /// 90 ms never condemns it.
        #[test]
        fn a_measure_that_is_late_is_forgiven(sizes in vec(0_u64..1000, 1..200), lag in 0_usize..5) {
            let mut overuse = Overuse::default();
            // A change of size every 20 looks, which are 20 ms apart; measures are up to four looks
            // old.
            let size_at = |look: usize| FrameCount::from_mib(sizes[look / 20]);
            for look in 0..sizes.len() * 20 {
                let resident = size_at(look.saturating_sub(lag)).max(size_at(look));
                let now = Moment::from_ns(1 + look as u64 * 20_000_000);
                prop_assert!(overuse.observe(size_at(look), resident, now).is_none());
            }
        }
    }
}
