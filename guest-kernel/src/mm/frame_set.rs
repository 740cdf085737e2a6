//! A set of frames that it owns, kept as wholly contained huge frames plus a bitmap for each partly
//! contained one.
//!
//! The free frames (in the frame allocator) and the ballooned frames (in the page list) are such
//! sets. A [`Block`] is moved in and out. Taking any frame or any huge frame is O(1), and single
//! frames are taken from broken huge frames first, so that whole ones stay whole.
#![allow(unsafe_code, reason = "members are kept as bits and become blocks again")]

use core::ops::Range;

use aerostat_abi::units::{FrameNumber, HUGE_FRAMES, HugeFrameNumber, to_usize};

use super::block::{Block, BlockSize, Contents, HugeRun};
use super::bump::BumpAllocator;
use super::huge_frame_set::HugeFrameSet;

const BITMAP_WORDS: usize = 8;
const HUGE: usize = to_usize(HUGE_FRAMES);

/// Owned frames of a machine with a fixed number of huge frames. What is in their memory is not
/// noted: blocks come out with unknown contents.
#[derive(Debug)]
pub(crate) struct FrameSet {
    /// Huge frames of which every frame is a member. Their bitmaps are all zero.
    whole: HugeFrameSet,
    /// Huge frames of which some frames are members; the bitmap says which.
    partial: HugeFrameSet,
    bitmaps: &'static mut [[u64; BITMAP_WORDS]],
    length: u64,
}

impl FrameSet {
    /// Returns how many words a set over `huge_frames` huge frames needs.
    pub(crate) const fn words(huge_frames: usize) -> usize {
        2 * HugeFrameSet::words(huge_frames) + BITMAP_WORDS * huge_frames
    }

    /// Creates the empty set.
    pub(crate) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        let (bitmaps, _) = bump.take_sparse(BITMAP_WORDS * huge_frames).as_chunks_mut();
        let (whole, partial) = (HugeFrameSet::new(huge_frames, bump), HugeFrameSet::new(huge_frames, bump));
        Self { whole, partial, bitmaps, length: 0 }
    }

    /// Adds every frame of the machine.
    ///
    /// # Safety
    /// The caller owns all of them, except those that it removes before it uses the set.
    pub(crate) unsafe fn fill(&mut self) {
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
            || self.bitmaps.get(huge.index()).is_some_and(|bitmap| bitmap[bit / 64] & 1 << (bit % 64) != 0)
    }

    /// Returns whether all of huge frame `huge` is in the set.
    pub(crate) fn contains_whole(&self, huge: HugeFrameNumber) -> bool {
        self.whole.contains(huge)
    }

    /// Adds a block; returns whether its huge frame is now wholly in the set.
    ///
    /// # Panics
    /// In debug builds, when part of the block is a member already: it would have two owners.
    pub(crate) fn insert(&mut self, block: Block) -> bool {
        let size = block.size();
        let first = block.into_number();
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
                let bitmap = &mut self.bitmaps[huge.index()];
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
    pub(crate) fn remove_whole(&mut self, huge: HugeFrameNumber) -> Option<Block> {
        if !self.whole.contains(huge) {
            return None;
        }
        self.whole.remove(huge);
        self.length -= HUGE_FRAMES;
        // SAFETY: the set owned the huge frame, and it is a member no more.
        Some(unsafe { Block::from_raw(huge.first(), BlockSize::Huge, Contents::Unknown) })
    }

    /// Adds a run of huge frames.
    ///
    /// # Panics
    /// In debug builds, when one of them is a member already.
    pub(crate) fn insert_run(&mut self, run: HugeRun) {
        self.length += run.frames().0;
        let numbers = run.into_numbers();
        debug_assert_eq!(self.whole.uniform(&numbers), Some(false), "{numbers:?} have two owners");
        self.whole.insert_all(&numbers);
    }

    /// Removes these huge frames, if all of them are members. The machine has all of them.
    pub(crate) fn remove_run(&mut self, numbers: Range<HugeFrameNumber>) -> Option<HugeRun> {
        if self.whole.uniform(&numbers) != Some(true) {
            return None;
        }
        self.whole.remove_all(&numbers);
        // SAFETY: the set owned the huge frames, and they are members no more.
        let run = unsafe { HugeRun::from_raw(numbers) };
        self.length -= run.frames().0;
        Some(run)
    }

    /// Removes the lowest whole huge frame.
    pub(crate) fn take_whole(&mut self) -> Option<Block> {
        let huge = self.whole.first()?;
        self.remove_whole(huge)
    }

    /// Returns the lowest partly contained huge frame.
    pub(crate) fn first_partial(&self) -> Option<HugeFrameNumber> {
        self.partial.first()
    }

    /// Returns whether some of huge frame `huge` is in the set, but not all.
    pub(crate) fn contains_part(&self, huge: HugeFrameNumber) -> bool {
        self.partial.contains(huge)
    }

    /// Removes the lowest frame of the lowest partly contained huge frame.
    pub(crate) fn take_from_partial(&mut self) -> Option<Block> {
        self.take_from(self.partial.first()?)
    }

    /// Removes the lowest frame of huge frame `huge`, if that is partly contained.
    pub(crate) fn take_from(&mut self, huge: HugeFrameNumber) -> Option<Block> {
        let bitmap = self.bitmaps.get_mut(huge.index())?;
        let word = bitmap.iter().position(|word| *word != 0)?;
        let bit = word as u64 * 64 + u64::from(bitmap[word].trailing_zeros());
        Some(self.remove_member(FrameNumber(huge.first().0 + bit)))
    }

    /// Removes a given frame, breaking its huge frame if need be.
    pub(crate) fn remove_frame(&mut self, frame: FrameNumber) -> Option<Block> {
        if !self.contains(frame) {
            return None;
        }
        self.break_whole(position(frame).0);
        Some(self.remove_member(frame))
    }

    /// Removes a frame of a partly contained huge frame. It is a member.
    fn remove_member(&mut self, frame: FrameNumber) -> Block {
        let (huge, bit) = position(frame);
        let bitmap = &mut self.bitmaps[huge.index()];
        bitmap[bit / 64] &= !(1 << (bit % 64));
        if *bitmap == [0; BITMAP_WORDS] {
            self.partial.remove(huge);
        }
        self.length -= 1;
        // SAFETY: the set owned the frame, and it is a member no more.
        unsafe { Block::from_raw(frame, BlockSize::Frame, Contents::Unknown) }
    }

    /// Turns a whole member into a partial one with all its frames.
    pub(crate) fn break_whole(&mut self, huge: HugeFrameNumber) {
        if self.whole.contains(huge) {
            self.whole.remove(huge);
            self.partial.insert(huge);
            self.bitmaps[huge.index()] = [u64::MAX; BITMAP_WORDS];
        }
    }

    /// Returns the huge frames that the set covers.
    pub(crate) fn huge_frames(&self) -> impl DoubleEndedIterator<Item = HugeFrameNumber> + use<> {
        (0..self.bitmaps.len() as u64).map(HugeFrameNumber)
    }

    /// Counts the whole huge frames, a word at a time.
    pub(crate) fn count_whole(&self) -> usize {
        self.whole.count()
    }

    /// Returns the lowest whole huge frame, from `from` on.
    pub(crate) fn next_whole(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.whole.next(from)
    }

    /// Returns the lowest huge frame, from `from` on, of which some frames are members.
    pub(crate) fn next(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        let found = [self.whole.next(from), self.partial.next(from)];
        found.into_iter().flatten().min()
    }

    /// Returns the lowest whole huge frame.
    pub(crate) fn first_whole(&self) -> Option<HugeFrameNumber> {
        self.whole.first()
    }

    /// Counts the members in huge frame `huge`, for checks.
    pub(crate) fn count_in(&self, huge: HugeFrameNumber) -> u64 {
        if self.whole.contains(huge) {
            return HUGE_FRAMES;
        }
        self.bitmaps[huge.index()].iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Recounts everything and compares it with the summaries.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let mut length = 0;
        for huge in self.huge_frames() {
            let bits: u32 = self.bitmaps[huge.index()].iter().map(|word| word.count_ones()).sum();
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
fn position(frame: FrameNumber) -> (HugeFrameNumber, usize) {
    (HugeFrameNumber::containing(frame), to_usize(frame.0 % HUGE_FRAMES))
}

#[cfg(test)]
mod tests;
