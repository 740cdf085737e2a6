//! Pinned memory: blocks that an application has by their numbers. On Linux, this is locked memory
//! and `/proc/self/pagemap`.
#![allow(unsafe_code, reason = "what is said to be zero is believed")]

use core::ops::Range;

use aerostat_abi::units::{BlockSize, FrameNumber};

use super::OutOfMemory;
use crate::mm::block::Contents;
use crate::mm::{Block, FRAMES, Purpose, slow_path};

/// A frame or a huge frame that is never moved nor evicted, owned, and free again when dropped. It
/// has no address: it is there to be given away, not to be used.
#[derive(Debug)]
pub struct Pinned {
    first: FrameNumber,
    size: BlockSize,
}

impl Pinned {
    /// A block out of what the application could be committed now. Neither waits nor evicts.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is none of that size.
    pub fn allocate(size: BlockSize) -> Result<Self, OutOfMemory> {
        FRAMES.allocate(size, Purpose::Balloon).map(Self::new).ok_or(OutOfMemory)
    }

    pub(crate) fn new(block: Block) -> Self {
        let size = block.size();
        Self { first: block.into_number(), size }
    }

    /// The first frame.
    #[must_use]
    pub fn first(&self) -> FrameNumber {
        self.first
    }

    /// How large it is.
    #[must_use]
    pub fn size(&self) -> BlockSize {
        self.size
    }

    /// Its frames, one by one and ascending.
    #[must_use]
    pub fn split(self) -> Frames {
        let frames = self.size.frames();
        let first = self.into_number().0;
        Frames { rest: first..first + frames }
    }

    /// Frees it, the host having had it in between: nothing is behind it, and it reads as zero.
    ///
    /// # Safety
    /// It does: the host has taken it and returned it, and nobody has used it since.
    pub unsafe fn free_unbacked(self) {
        let size = self.size;
        // SAFETY: the value owned the memory, and is gone.
        let block = unsafe { Block::from_raw(self.into_number(), size, Contents::Zero) };
        FRAMES.free_unbacked(block);
        slow_path::frames_freed();
    }

    /// Gives up the value but not the memory.
    fn into_number(self) -> FrameNumber {
        let first = self.first;
        core::mem::forget(self);
        first
    }
}

/// The frames of a block that was split; those that nobody takes are freed when it is dropped.
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
    fn first(&self) -> FrameNumber {
        self.first
    }

    fn size(&self) -> BlockSize {
        self.size
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the value owns the memory, and is going.
        let block = unsafe { Block::from_raw(self.first, self.size, Contents::Unknown) };
        FRAMES.free_ballooned(block);
        slow_path::frames_freed();
    }
}
