//! A set of frames of one huge frame. Pure.

use std::ops::Range;

use aerostat_abi::units::{HUGE_FRAMES, to_usize};

const FRAMES: usize = to_usize(HUGE_FRAMES);
const WORDS: usize = FRAMES / u64::BITS as usize;

/// Some of the frames of a huge frame, by their number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameMask([u64; WORDS]);

impl FrameMask {
    pub(crate) const EMPTY: Self = Self([0; WORDS]);
    pub(crate) const ALL: Self = Self([u64::MAX; WORDS]);

    /// Adds the frames of these numbers.
    pub(crate) fn insert(&mut self, frames: Range<usize>) {
        for (word, bits) in words(frames) {
            self.0[word] |= bits;
        }
    }

    /// Removes the frames of these numbers.
    pub(crate) fn remove(&mut self, frames: Range<usize>) {
        for (word, bits) in words(frames) {
            self.0[word] &= !bits;
        }
    }

    pub(crate) fn contains(&self, frame: usize) -> bool {
        self.0[frame / u64::BITS as usize] & (1 << (frame % u64::BITS as usize)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns the frames that are in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Returns the frames that are in `self` and not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Returns the frames in runs, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let mask = *self;
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = (at..FRAMES).find(|&frame| mask.contains(frame))?;
            let end = (start..FRAMES).find(|&frame| !mask.contains(frame)).unwrap_or(FRAMES);
            at = end;
            Some(start..end)
        })
    }
}

impl FromIterator<Range<usize>> for FrameMask {
    fn from_iter<I: IntoIterator<Item = Range<usize>>>(runs: I) -> Self {
        let mut mask = Self::EMPTY;
        runs.into_iter().for_each(|run| mask.insert(run));
        mask
    }
}

/// Returns the words that hold the bits of these frames, each with its bits.
fn words(frames: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let bits = u64::BITS as usize;
    (frames.start / bits..frames.end.div_ceil(bits)).map(move |word| {
        let start = frames.start.max(word * bits) - word * bits;
        let end = frames.end.min((word + 1) * bits) - word * bits;
        let below = |bit: usize| if bit == bits { u64::MAX } else { (1 << bit) - 1 };
        (word, below(end) & !below(start))
    })
}

#[cfg(test)]
mod tests {
    use super::{FRAMES, FrameMask};
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_mask_agrees_with_a_list(changes in vec((0..FRAMES, 0..FRAMES, any::<bool>()), 0..20)) {
            let (mut mask, mut list) = (FrameMask::EMPTY, vec![false; FRAMES]);
            for (one, other, inserts) in changes {
                let frames = one.min(other)..one.max(other) + 1;
                if inserts { mask.insert(frames.clone()) } else { mask.remove(frames.clone()) }
                list[frames].fill(inserts);
            }
            for (frame, &is_in) in list.iter().enumerate() {
                prop_assert_eq!(mask.contains(frame), is_in);
            }
            prop_assert_eq!(mask.count(), list.iter().filter(|is_in| **is_in).count() as u64);
            prop_assert_eq!(mask.runs().collect::<FrameMask>(), mask);
            prop_assert_eq!(mask.runs().map(|run| run.len() as u64).sum::<u64>(), mask.count());
            prop_assert_eq!(FrameMask::ALL.minus(&mask).and(&mask), FrameMask::EMPTY);
        }
    }
}
