//! What is written of a huge frame, and how. Pure.
//!
//! A frame that repeats one word is not written: the word is noted. Where most frames are zero,
//! not even that: they are forgotten, and the host gives zeros when they are touched.

use std::ops::Range;

use aerostat_abi::units::FRAME_SIZE;

use super::frame_mask::FrameMask;

/// Words of a frame.
pub(super) const WORDS: usize = FRAME_SIZE / size_of::<u64>();
/// The most runs of filled frames that are noted of a huge frame: a guest must not make this
/// process grow without bounds.
const MOST_FILLED: usize = 64;
/// Zero frames of a huge frame up to which they are kept, so that it comes back as one huge page.
const FEW_ZEROS: u64 = 64;
/// Frames between two runs up to which both are transferred at once: that takes less time than
/// another transfer.
const GAP: usize = 32;

/// Frames in a row that repeat one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) frames: Range<usize>,
    pub(super) word: u64,
}

/// What is to be kept of the frames of a huge frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// Frames that are written to the file.
    pub(super) stored: FrameMask,
    /// Frames that are noted.
    pub(super) filled: Vec<Filled>,
}

impl Kept {
    /// Decides about the frames in `present`; the others have no contents. `words` returns a
    /// frame's words.
    pub(super) fn decide<'a>(present: &FrameMask, words: impl Fn(usize) -> &'a [u64]) -> Self {
        let mut filled: Vec<Filled> = Vec::new();
        let mut stored = *present;
        for frame in present.runs().flatten() {
            let Some(word) = repeated_word(words(frame)) else { continue };
            let may_note = filled.len() < MOST_FILLED;
            match filled.last_mut() {
                Some(last) if last.frames.end == frame && last.word == word => last.frames.end += 1,
                _ if may_note => filled.push(Filled { frames: frame..frame + 1, word }),
                _ => continue,
            }
            stored.remove(frame..frame + 1);
        }
        let zeros: u64 = filled.iter().filter(|filled| filled.word == 0).map(|filled| filled.frames.len() as u64).sum();
        if zeros > FEW_ZEROS || *present != FrameMask::ALL {
            filled.retain(|filled| filled.word != 0);
        }
        Self { stored, filled }
    }

    /// Returns all frames that have contents.
    pub(super) fn frames(&self) -> FrameMask {
        let mut frames = self.stored;
        self.filled.iter().for_each(|filled| frames.insert(filled.frames.clone()));
        frames
    }
}

/// Returns the word that fills a frame.
fn repeated_word(words: &[u64]) -> Option<u64> {
    let (first, rest) = words.split_first()?;
    rest.iter().all(|word| word == first).then_some(*first)
}

/// Returns ranges that cover `wanted`, ascending, in few transfers. Beyond `wanted` they hold
/// frames of `allowed` only.
pub(super) fn transfers(wanted: &FrameMask, allowed: &FrameMask) -> Vec<Range<usize>> {
    let mut transfers: Vec<Range<usize>> = Vec::new();
    for run in wanted.runs() {
        match transfers.last_mut() {
            Some(last) if run.start - last.end <= GAP && (last.end..run.start).all(|frame| allowed.contains(frame)) => {
                last.end = run.end;
            }
            _ => transfers.push(run),
        }
    }
    transfers
}

#[cfg(test)]
mod tests {
    use super::{FrameMask, Kept, MOST_FILLED, WORDS, transfers};
    use aerostat_abi::units::{HUGE_FRAMES, to_usize};

    const FRAMES: usize = to_usize(HUGE_FRAMES);

    /// The contents of a huge frame whose frames are filled with these words; `None` for a frame
    /// that repeats nothing.
    fn decide(present: &FrameMask, word: impl Fn(usize) -> Option<u64>) -> Kept {
        let frames: Vec<Vec<u64>> = (0..FRAMES)
            .map(|frame| match word(frame) {
                Some(word) => vec![word; WORDS],
                None => (0..WORDS as u64).collect(),
            })
            .collect();
        Kept::decide(present, |frame| &frames[frame])
    }

    #[test]
    fn frames_of_one_word_are_noted() {
        let kept = decide(&FrameMask::ALL, |frame| (4..7).contains(&frame).then_some(9));
        assert_eq!(kept.filled.len(), 1);
        assert_eq!((kept.filled[0].frames.clone(), kept.filled[0].word), (4..7, 9));
        assert_eq!((kept.stored.count(), kept.frames()), (509, FrameMask::ALL));
    }

    #[test]
    fn few_zero_frames_are_kept_and_many_are_not() {
        let few = decide(&FrameMask::ALL, |frame| (frame < 8).then_some(0));
        assert_eq!(few.frames(), FrameMask::ALL);
        let many = decide(&FrameMask::ALL, |frame| (frame < 500).then_some(0));
        assert_eq!((many.frames().count(), many.filled.len()), (12, 0));
        let mut part = FrameMask::EMPTY;
        part.insert(0..20);
        let part = decide(&part, |frame| (frame < 8).then_some(0));
        assert_eq!((part.frames().count(), part.filled.len()), (12, 0), "it is no huge page anyway");
    }

    #[test]
    fn notes_are_bounded() {
        let kept = decide(&FrameMask::ALL, |frame| Some(frame as u64 + 1));
        assert_eq!(kept.filled.len(), MOST_FILLED);
        assert_eq!((kept.frames(), kept.stored.count()), (FrameMask::ALL, (FRAMES - MOST_FILLED) as u64));
    }

    #[test]
    fn transfers_join_runs_over_small_gaps() {
        let wanted = FrameMask::from_iter([0..4, 6..10, 100..110]);
        assert_eq!(transfers(&wanted, &FrameMask::ALL), [0..10, 100..110]);
        assert_eq!(transfers(&wanted, &wanted), [0..4, 6..10, 100..110], "what is not there is not written");
    }
}
