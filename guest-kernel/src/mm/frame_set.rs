//! A set of frames, kept as wholly contained huge frames plus a bitmap for each partly contained
//! one.
//!
//! The free frames (in the frame allocator) and the ballooned frames (in the page list) are such
//! sets. Taking any frame or any huge frame is O(1), and single frames are taken from broken huge
//! frames first, so that whole ones stay whole.

use aerostat_abi::units::{FrameNumber, HUGE_FRAMES, to_usize};

use super::bit_tree::BitTree;
use super::block::BlockSize;
use super::bump::BumpAllocator;

const BITMAP_WORDS: usize = 8;
const HUGE: usize = to_usize(HUGE_FRAMES);

/// A set of frames of a machine with a fixed number of huge frames.
#[derive(Debug)]
pub(crate) struct FrameSet {
    /// Huge frames of which every frame is a member. Their bitmaps are all zero.
    whole: BitTree,
    /// Huge frames of which some frames are members; the bitmap says which.
    partial: BitTree,
    bitmaps: &'static mut [[u64; BITMAP_WORDS]],
    length: u64,
}

impl FrameSet {
    /// Returns how many words a set over `huge_frames` huge frames needs.
    pub(crate) const fn words(huge_frames: usize) -> usize {
        2 * BitTree::words(huge_frames) + BITMAP_WORDS * huge_frames
    }

    /// Creates the empty set.
    pub(crate) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        let (bitmaps, _) = bump.take(BITMAP_WORDS * huge_frames).as_chunks_mut();
        Self { whole: BitTree::new(huge_frames, bump), partial: BitTree::new(huge_frames, bump), bitmaps, length: 0 }
    }

    /// Adds every frame of the machine.
    pub(crate) fn fill(&mut self) {
        debug_assert_eq!(self.length, 0);
        self.whole.fill();
        self.length = self.bitmaps.len() as u64 * HUGE_FRAMES;
    }

    /// Returns the number of members.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Returns whether `frame` is a member.
    pub(crate) fn contains(&self, frame: FrameNumber) -> bool {
        let (huge, bit) = position(frame);
        self.whole.contains(huge)
            || self.bitmaps.get(huge).is_some_and(|bitmap| bitmap[bit / 64] & 1 << (bit % 64) != 0)
    }

    /// Returns whether all of huge frame `huge` is in the set.
    pub(crate) fn contains_whole(&self, huge: usize) -> bool {
        self.whole.contains(huge)
    }

    /// Adds a block; returns whether its huge frame is now wholly in the set.
    ///
    /// # Panics
    /// In debug builds, when part of the block is a member already: it would have two owners.
    pub(crate) fn insert(&mut self, first: FrameNumber, size: BlockSize) -> bool {
        let (huge, bit) = position(first);
        self.length += size.frames();
        match size {
            BlockSize::Huge => {
                debug_assert!(!self.whole.contains(huge) && !self.partial.contains(huge), "{first:?} has two owners");
                self.whole.insert(huge);
                true
            }
            BlockSize::Frame => {
                debug_assert!(!self.contains(first), "{first:?} has two owners");
                let bitmap = &mut self.bitmaps[huge];
                bitmap[bit / 64] |= 1 << (bit % 64);
                if *bitmap != [u64::MAX; BITMAP_WORDS] {
                    self.partial.insert(huge);
                    return false;
                }
                *bitmap = [0; BITMAP_WORDS];
                self.partial.remove(huge);
                self.whole.insert(huge);
                true
            }
        }
    }

    /// Removes huge frame `huge`, if all of it is a member.
    pub(crate) fn remove_whole(&mut self, huge: usize) -> Option<FrameNumber> {
        self.whole.contains(huge).then(|| {
            self.whole.remove(huge);
            self.length -= HUGE_FRAMES;
            FrameNumber(huge as u64 * HUGE_FRAMES)
        })
    }

    /// Removes the lowest whole huge frame.
    pub(crate) fn take_whole(&mut self) -> Option<FrameNumber> {
        let huge = self.whole.first()?;
        self.remove_whole(huge)
    }

    /// Returns the lowest partly contained huge frame.
    pub(crate) fn first_partial(&self) -> Option<usize> {
        self.partial.first()
    }

    /// Returns whether some of huge frame `huge` is in the set, but not all.
    pub(crate) fn contains_part(&self, huge: usize) -> bool {
        self.partial.contains(huge)
    }

    /// Removes the lowest frame of the lowest partly contained huge frame.
    pub(crate) fn take_from_partial(&mut self) -> Option<FrameNumber> {
        self.take_from(self.partial.first()?)
    }

    /// Removes the lowest frame of huge frame `huge`, if that is partly contained.
    pub(crate) fn take_from(&mut self, huge: usize) -> Option<FrameNumber> {
        let bitmap = self.bitmaps.get_mut(huge)?;
        let word = bitmap.iter().position(|word| *word != 0)?;
        let bit = bitmap[word].trailing_zeros();
        bitmap[word] &= bitmap[word] - 1;
        if *bitmap == [0; BITMAP_WORDS] {
            self.partial.remove(huge);
        }
        self.length -= 1;
        Some(FrameNumber(huge as u64 * HUGE_FRAMES + word as u64 * 64 + u64::from(bit)))
    }

    /// Removes a given frame, breaking its huge frame if need be. Returns whether it was a member.
    pub(crate) fn remove_frame(&mut self, frame: FrameNumber) -> bool {
        if !self.contains(frame) {
            return false;
        }
        let (huge, bit) = position(frame);
        self.break_whole(huge);
        let bitmap = &mut self.bitmaps[huge];
        bitmap[bit / 64] &= !(1 << (bit % 64));
        if *bitmap == [0; BITMAP_WORDS] {
            self.partial.remove(huge);
        }
        self.length -= 1;
        true
    }

    /// Turns a whole member into a partial one with all its frames.
    pub(crate) fn break_whole(&mut self, huge: usize) {
        if self.whole.contains(huge) {
            self.whole.remove(huge);
            self.partial.insert(huge);
            self.bitmaps[huge] = [u64::MAX; BITMAP_WORDS];
        }
    }

    /// Returns the number of huge frames that the set covers.
    pub(crate) fn huge_frames(&self) -> usize {
        self.bitmaps.len()
    }

    /// Counts the whole huge frames, a word at a time.
    pub(crate) fn count_whole(&self) -> usize {
        self.whole.count()
    }

    /// Returns the lowest whole huge frame.
    pub(crate) fn first_whole(&self) -> Option<usize> {
        self.whole.first()
    }

    /// Counts the members in huge frame `huge`, for checks.
    pub(crate) fn count_in(&self, huge: usize) -> u64 {
        if self.whole.contains(huge) {
            return HUGE_FRAMES;
        }
        self.bitmaps[huge].iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Recounts everything and compares it with the summaries.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let mut length = 0;
        for huge in 0..self.bitmaps.len() {
            let bits: u32 = self.bitmaps[huge].iter().map(|word| word.count_ones()).sum();
            if self.whole.contains(huge) && bits != 0 {
                return Err("a whole huge frame has bits in its bitmap");
            }
            if self.partial.contains(huge) != (bits != 0) {
                return Err("the partial huge frames and the bitmaps disagree");
            }
            if bits as usize == HUGE {
                return Err("a full bitmap was not made a whole huge frame");
            }
            length += self.count_in(huge);
        }
        if length == self.length { Ok(()) } else { Err("the set's length is not the number of its members") }
    }
}

/// Returns the huge frame and the index within it.
fn position(frame: FrameNumber) -> (usize, usize) {
    let number = to_usize(frame.0);
    (number / HUGE, number % HUGE)
}

#[cfg(test)]
mod tests;
