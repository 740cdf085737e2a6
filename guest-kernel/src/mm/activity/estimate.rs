//! What follows from samples: how much memory is in use, and how many to take next. Pure.

use aerostat_abi::units::HUGE_FRAMES;

/// Thousandths by which the part in use differs from the estimate before it is another part: with
/// some hundred samples, less may be chance.
const CHANGE_PER_MILLE: u64 = 150;
/// A smaller difference counts by one in so many.
const SMOOTHING: u64 = 4;

/// What the samples of a period were found to be, in pages that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) touched: u64,
    idle: u64,
}

impl Found {
    /// Counts a sample that stands for `pages` pages; `None` is one that is in memory no more.
    pub(super) fn count(&mut self, was_touched: Option<bool>, pages: u64) {
        match was_touched {
            Some(true) => self.touched += pages,
            Some(false) => self.idle += pages,
            None => {}
        }
    }

    fn touched_per_mille(self) -> Option<u64> {
        let all = self.touched + self.idle;
        (self.touched * 1000 + all / 2).checked_div(all)
    }
}

/// Pages of the application in use and idle ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    pub(super) active: u64,
    pub(super) idle: u64,
}

impl Estimate {
    pub(super) const NONE: Self = Self { active: 0, idle: 0 };

    /// Returns the estimate after a period in which this was found. A small change of the part in
    /// use counts gradually, since the host's decisions follow from it.
    pub(super) fn next(self, found: Found) -> Self {
        let Some(latest) = found.touched_per_mille() else { return Self::NONE };
        let before = Found { touched: self.active, idle: self.idle }.touched_per_mille();
        let per_mille = match before {
            Some(before) if before.abs_diff(latest) < CHANGE_PER_MILLE => {
                ((SMOOTHING - 1) * before + latest + SMOOTHING / 2) / SMOOTHING
            }
            _ => latest,
        };
        let all = found.touched + found.idle;
        let active = (all * per_mille + 500) / 1000;
        Self { active, idle: all - active }
    }

    /// Returns the estimate as a word: pages fit in 32 bits.
    pub(super) const fn encode(self) -> u64 {
        self.active << 32 | (self.idle & 0xffff_ffff)
    }

    pub(super) const fn decode(word: u64) -> Self {
        Self { active: word >> 32, idle: word & 0xffff_ffff }
    }
}

/// How dense the samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Density {
    /// Slots from one that is sampled to the next.
    pub(super) stride: u64,
    /// Samples in a slot that is a table; of a huge page there is one accessed bit.
    pub(super) of_table: u64,
}

impl Density {
    /// Samples in every slot.
    pub(super) const FULL: Self = Self { stride: 1, of_table: HUGE_FRAMES / 32 };

    /// Returns the density after a period with `count` samples: one with which there are between a
    /// quarter of `most` and all.
    pub(super) fn next(self, count: usize, most: usize) -> Self {
        let Self { stride, of_table } = self;
        if count == most && of_table > 1 {
            Self { of_table: of_table / 2, ..self }
        } else if count == most {
            Self { stride: stride * 2, ..self }
        } else if count < most / 4 && stride > 1 {
            Self { stride: stride / 2, ..self }
        } else if count < most / 4 {
            Self { of_table: (of_table * 2).min(Self::FULL.of_table), ..self }
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Density, Estimate, Found};

    fn found(touched: u64, idle: u64) -> Found {
        Found { touched, idle }
    }

    #[test]
    fn a_large_change_counts_at_once_and_a_small_one_gradually() {
        let mut estimate = Estimate::NONE.next(found(250, 750));
        assert_eq!(estimate, Estimate { active: 250, idle: 750 });
        estimate = estimate.next(found(290, 710));
        assert_eq!(estimate, Estimate { active: 260, idle: 740 });
        assert_eq!(estimate.next(found(1000, 0)), Estimate { active: 1000, idle: 0 });
        (0..20).for_each(|_| estimate = estimate.next(found(580, 1420)));
        assert!((570..=580).contains(&estimate.active), "twice the memory, of which 29 % is in use: {estimate:?}");
        assert_eq!(estimate.next(found(0, 0)), Estimate::NONE, "nothing is in memory");
    }

    #[test]
    fn an_estimate_is_a_word() {
        let estimate = Estimate { active: 0xffff_ffff, idle: 7 };
        assert_eq!(Estimate::decode(estimate.encode()), estimate);
    }

    #[test]
    fn there_is_a_number_of_samples_that_is_enough() {
        let density_after =
            |counts: &[usize]| counts.iter().fold(Density::FULL, |density, &count| density.next(count, 128));
        assert_eq!(density_after(&[127, 32]), Density::FULL);
        assert_eq!(density_after(&[3, 0]), Density::FULL, "there is no more");
        assert_eq!(density_after(&[128; 4]), Density { stride: 1, of_table: 1 });
        assert_eq!(density_after(&[128; 6]), Density { stride: 4, of_table: 1 });
        assert_eq!(density_after(&[128, 128, 128, 128, 128, 128, 31, 31, 31]), Density { stride: 1, of_table: 2 });
    }
}
