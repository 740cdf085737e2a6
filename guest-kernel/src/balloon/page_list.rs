//! The page list: the frames in the balloon, owned.
//!
//! A ballooned frame has no memory that could hold list links, so the page list is a set of frame
//! numbers. Huge frames leave it first: they are the fastest to deflate and the most useful.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HugeFrameNumber};

use crate::mm::block::HugeRun;
use crate::mm::bump::BumpAllocator;
use crate::mm::frame_set::FrameSet;
use crate::mm::{Block, BlockSize};

/// The frames in the balloon.
#[derive(Debug)]
pub(crate) struct PageList {
    frames: FrameSet,
}

impl PageList {
    /// Returns the number of zeroed words that a page list for `huge_frames` huge frames needs.
    pub(crate) const fn words(huge_frames: usize) -> usize {
        FrameSet::words(huge_frames)
    }

    /// Returns an empty page list.
    pub(crate) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        Self { frames: FrameSet::new(huge_frames, bump) }
    }

    /// Recounts all frames.
    ///
    /// # Errors
    /// Names the first inconsistency.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.frames.validate()
    }
}

impl aerostat_balloon_driver::Block for Block {
    type Run = HugeRun;

    fn first(&self) -> FrameNumber {
        self.first()
    }

    fn size(&self) -> BlockSize {
        self.size()
    }
}

impl aerostat_balloon_driver::PageList for PageList {
    type Block = Block;

    fn insert(&mut self, block: Block) {
        self.frames.insert(block);
    }

    fn insert_run(&mut self, run: HugeRun) {
        self.frames.insert_run(run);
    }

    fn remove(&mut self, frames: FrameCount) -> Option<Block> {
        if frames.0 >= BlockSize::Huge.frames()
            && let Some(block) = self.frames.take_whole()
        {
            return Some(block);
        }
        if frames == FrameCount::ZERO {
            return None;
        }
        self.frames.take_from_partial().or_else(|| {
            self.frames.break_whole(self.frames.first_whole()?);
            self.frames.take_from_partial()
        })
    }

    fn remove_within(&mut self, range: Range<FrameNumber>) -> Option<Block> {
        let mut at = range.start;
        while at < range.end {
            let huge = HugeFrameNumber::containing(at);
            let next = FrameNumber((at.0 + 1).next_multiple_of(HUGE_FRAMES));
            let is_whole = at == huge.first() && next <= range.end;
            let block = if is_whole && self.frames.contains_whole(huge) {
                self.frames.remove_whole(huge)
            } else if self.frames.contains_whole(huge) || self.frames.contains_part(huge) {
                let mut frames = (at.0..next.0.min(range.end.0)).map(FrameNumber);
                frames.find_map(|frame| self.frames.remove_frame(frame))
            } else {
                None
            };
            if block.is_some() {
                return block;
            }
            at = next;
        }
        None
    }

    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool {
        match size {
            BlockSize::Huge => self.frames.contains_whole(HugeFrameNumber::containing(first)),
            BlockSize::Frame => self.frames.contains(first),
        }
    }

    fn size(&self) -> FrameCount {
        FrameCount(self.frames.len())
    }
}

#[cfg(test)]
mod tests;
