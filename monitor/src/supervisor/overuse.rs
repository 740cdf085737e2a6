//! When a guest has used so much memory beyond its size that it is ended. Pure.
//!
//! A guest can write to frames that are in its balloon: nothing on the host stops it, and every such frame becomes resident again.
//! The scheduler charges the guest for it, so nobody is promised that memory; but others may need it, and a kernel that writes to
//! what it gave away is broken or hostile. So it is ended, for its own fault and at nobody else's cost.
//!
//! A *sample* is a size and a resident memory that belong together. The two are not read at one moment: resident memory is measured
//! by the VMM process at intervals, so a single look may pair an old measure with a new size. Therefore several samples in a row must
//! show the excess, and looks that may have seen the same measure count as one.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;

/// What resident memory may exceed the size by, whatever the size: the VMM process's own memory, which its measure includes, and what a
/// guest's disks bring into frames that it has just given. Huge pages of the host add nothing: none is behind a huge frame of which a
/// part is given (`vmm::page_sizes`).
const TOLERANCE: FrameCount = FrameCount::from_mib(8);
/// The same as a part of the size: one frame for so many. Page tables and the VMM's map of frames grow with the size.
const TOLERANCE_DIVISOR: u64 = 50;
/// Samples in a row that must show the excess.
const SAMPLES: u32 = 3;
/// Time between samples: a VMM process measures at least so often (`vmm::process`), so each sample has a measure of its own.
const SAMPLE_PACE: Duration = Duration::from_millis(50);

/// The excess in a guest's latest samples.
#[derive(Debug, Default)]
pub(super) struct Overuse {
    in_a_row: u32,
    last_sample: Moment,
}

impl Overuse {
    /// Takes a look at a guest in; returns what it uses beyond its size when it is to be ended for it.
    ///
    /// A size of zero is that of a machine which has not published any.
    pub(super) fn observe(&mut self, size: FrameCount, resident: FrameCount, now: Moment) -> Option<FrameCount> {
        let tolerated = size.saturating_add(TOLERANCE).saturating_add(FrameCount(size.0 / TOLERANCE_DIVISOR));
        if size == FrameCount::ZERO || resident <= tolerated {
            self.in_a_row = 0;
            return None;
        }
        if self.in_a_row == 0 || now.since(self.last_sample) >= SAMPLE_PACE {
            self.in_a_row += 1;
            self.last_sample = now;
        }
        (self.in_a_row >= SAMPLES).then(|| resident.saturating_sub(size))
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
            let excess = overuse.observe(SIZE, FrameCount::from_mib(mib), Moment::from_ns(ms * 1_000_000));
            excess.map(FrameCount::mib)
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
    fn a_machine_without_a_size_yet_is_not_judged() {
        let mut overuse = Overuse::default();
        for ms in [1, 51, 101, 151] {
            assert_eq!(overuse.observe(FrameCount::ZERO, SIZE, Moment::from_ns(ms * 1_000_000)), None);
        }
    }

    proptest! {
        /// Resident memory that is at most what the guest had the right to at some time in the last 90 ms never condemns it.
        #[test]
        fn a_measure_that_is_late_is_forgiven(sizes in vec(0_u64..1000, 1..200), lag in 0_usize..5) {
            let mut overuse = Overuse::default();
            // A change of size every 20 looks, which are 20 ms apart; measures are up to four looks old.
            let size_at = |look: usize| FrameCount::from_mib(sizes[look / 20]);
            for look in 0..sizes.len() * 20 {
                let resident = size_at(look.saturating_sub(lag)).max(size_at(look));
                let now = Moment::from_ns(1 + look as u64 * 20_000_000);
                prop_assert!(overuse.observe(size_at(look), resident, now).is_none());
            }
        }
    }
}
