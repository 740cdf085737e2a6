//! Pinned memory: blocks that an application owns and knows by their numbers. On Linux, this is
//! locked memory with `/proc/self/pagemap`.
#![allow(unsafe_code, reason = "turns the number that a value owns back into its block")]

use core::ops::Range;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};

use super::OutOfMemory;
use crate::mm::block::Contents;
use crate::mm::{Block, FRAMES, Purpose, identity, slow_path};

/// An owned frame or huge frame, which is never moved nor evicted. Dropping it frees it. It has no
/// address: its owner can put it into the balloon, but not access it.
#[derive(Debug)]
pub struct Pinned {
    first: FrameNumber,
    size: BlockSize,
}

impl Pinned {
    /// Allocates a block out of the memory that the application could commit now. Neither waits nor
    /// evicts.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is none of that size.
    pub fn allocate(size: BlockSize) -> Result<Self, OutOfMemory> {
        FRAMES.allocate(size, Purpose::Balloon).map(Self::new).ok_or(OutOfMemory)
    }

    /// Takes over a block.
    pub(crate) fn new(block: Block) -> Self {
        let size = block.size();
        Self { first: block.into_number(), size }
    }

    /// Returns the first frame.
    #[must_use]
    pub fn first(&self) -> FrameNumber {
        self.first
    }

    /// Returns the size.
    #[must_use]
    pub fn size(&self) -> BlockSize {
        self.size
    }

    /// Splits the block into its frames, in ascending order.
    #[must_use]
    pub fn split(self) -> Frames {
        let frames = self.size.frames();
        let first = self.into_number().0;
        Frames { rest: first..first + frames }
    }

    /// Frees a block that was in the balloon: the host does not back it, and it reads as zero.
    ///
    /// # Safety
    /// The host has released the block and returned it, and no code has accessed it since.
    pub unsafe fn free_unbacked(self) {
        let size = self.size;
        // SAFETY: the value owned the memory, and was given up.
        let block = unsafe { Block::from_raw(self.into_number(), size, Contents::Zero) };
        identity::reach(block.first());
        FRAMES.free_unbacked(block);
        slow_path::frames_freed(FrameCount(size.frames()));
    }

    /// Gives up the value but not the memory.
    fn into_number(self) -> FrameNumber {
        let first = self.first;
        core::mem::forget(self);
        first
    }
}

/// The frames of a block that was split. Dropping it frees those that were not taken.
#[derive(Debug)]
pub struct Frames {
    /// Their numbers.
    rest: Range<u64>,
}

impl Iterator for Frames {
    type Item = Pinned;

    fn next(&mut self) -> Option<Pinned> {
        self.rest.next().map(|frame| Pinned { first: FrameNumber(frame), size: BlockSize::Frame })
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl aerostat_balloon_driver::Block for Pinned {
    /// An application claims each block.
    type Run = core::convert::Infallible;

    fn first(&self) -> FrameNumber {
        self.first
    }

    fn size(&self) -> BlockSize {
        self.size
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the value owns the memory, and is being dropped.
        let block = unsafe { Block::from_raw(self.first, self.size, Contents::Unknown) };
        FRAMES.free_ballooned(block);
        slow_path::frames_freed(FrameCount(self.size.frames()));
    }
}
