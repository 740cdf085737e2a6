//! The ledger: the frames in the balloon, owned.
//!
//! A ballooned frame's memory is gone, so nothing can be written into it: the ledger is a set beside it. It gives huge frames back
//! first, as those are the fastest to take and the best to have.

use aerostat_abi::units::{FrameCount, FrameNumber};

use crate::mm::block::Contents;
use crate::mm::carve::Carver;
use crate::mm::frame_set::FrameSet;
use crate::mm::{Block, BlockSize};

/// Frames that belong to the balloon.
#[derive(Debug)]
pub(crate) struct Ledger {
    frames: FrameSet,
}

impl Ledger {
    /// Zeroed words that a ledger for a machine of `huge_frames` huge frames needs.
    pub(crate) const fn words(huge_frames: usize) -> usize {
        FrameSet::words(huge_frames)
    }

    /// An empty ledger.
    pub(crate) fn new(huge_frames: usize, carver: &mut Carver) -> Self {
        Self { frames: FrameSet::new(huge_frames, carver) }
    }

    /// Recounts.
    ///
    /// # Errors
    /// The first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.frames.validate()
    }
}

impl aerostat_balloon_driver::Ledger for Ledger {
    type Block = Block;

    fn put(&mut self, block: Block) {
        let size = block.size();
        self.frames.insert(block.into_number(), size);
    }

    fn take(&mut self, frames: FrameCount) -> Option<Block> {
        let owned = |first: FrameNumber, size| Block::from_number(first, size, Contents::Zero);
        if frames.0 >= BlockSize::Huge.frames()
            && let Some(first) = self.frames.take_whole()
        {
            return Some(owned(first, BlockSize::Huge));
        }
        if frames == FrameCount::ZERO {
            return None;
        }
        if let Some(first) = self.frames.take_from_partial() {
            return Some(owned(first, BlockSize::Frame));
        }
        let huge = self.frames.first_whole()?;
        self.frames.break_whole(huge);
        self.frames.take_from_partial().map(|first| owned(first, BlockSize::Frame))
    }

    fn size(&self) -> FrameCount {
        FrameCount(self.frames.len())
    }
}

#[cfg(test)]
mod tests;
