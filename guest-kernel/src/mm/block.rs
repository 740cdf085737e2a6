//! Owned memory: a [`Block`] is one frame or one huge frame, and the holder of the value owns the
//! memory.
//!
//! A block is in exactly one place: in a [set of frames](super::frame_set) (free, or in the
//! balloon's page list), in a CPU's frame cache, held by code that uses it, or behind a page table
//! entry. Moving the value is the transition. Where a structure keeps a number in place of the
//! value, ownership enters it through [`Block::into_number`] and leaves it through
//! [`Block::from_raw`].
#![allow(unsafe_code, reason = "makes ownership out of a number, for callers who vouch for it")]

use core::ops::Range;

pub(crate) use aerostat_abi::units::BlockSize;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HugeFrameNumber};

/// What is in a block's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// All zero: the host has not backed it since it last had it.
    Zero,
    /// What its last owner left.
    Unknown,
}

/// Whether the host has memory behind a block that becomes free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// It may have: the guest has used the block since the host had it last.
    Backed,
    /// It has none: the host had the block, and nothing has touched it since. What such memory
    /// reads as depends on the host.
    Unbacked,
}

/// An owned frame or huge frame. It must be freed, mapped or put into the page list: dropping one
/// loses memory.
#[derive(Debug)]
#[must_use = "a block that is dropped is lost memory"]
pub(crate) struct Block {
    first: FrameNumber,
    size: BlockSize,
    contents: Contents,
}

impl Block {
    /// Takes ownership of the block that begins at `first`.
    ///
    /// # Safety
    /// The caller owns the memory of this block: no other block, page table entry or set holds any
    /// of its frames, and nothing refers to what is in them.
    pub(crate) unsafe fn from_raw(first: FrameNumber, size: BlockSize, contents: Contents) -> Self {
        debug_assert!(first.is_aligned(size.order()));
        Self { first, size, contents }
    }

    /// Consumes the value but does not free the memory: the structure that stores the number owns
    /// it now.
    #[must_use]
    pub(crate) fn into_number(self) -> FrameNumber {
        let first = self.first;
        core::mem::forget(self);
        first
    }

    /// Notes what is in the block's memory. The caller knows it.
    pub(crate) fn with_contents(self, contents: Contents) -> Self {
        let size = self.size;
        let first = self.into_number();
        Self { first, size, contents }
    }

    /// Returns the first frame.
    #[must_use]
    pub(crate) fn first(&self) -> FrameNumber {
        self.first
    }

    /// Returns the block's size.
    #[must_use]
    pub(crate) fn size(&self) -> BlockSize {
        self.size
    }

    /// Returns what is in the block's memory.
    #[must_use]
    pub(crate) fn contents(&self) -> Contents {
        self.contents
    }
}

/// Owned huge frames in a row. As a [`Block`], they must not be dropped.
#[derive(Debug)]
#[must_use = "a run that is dropped is lost memory"]
pub(crate) struct HugeRun(Range<HugeFrameNumber>);

impl HugeRun {
    /// Takes ownership of these huge frames.
    ///
    /// # Safety
    /// As for [`Block::from_raw`], for each of them.
    pub(crate) unsafe fn from_raw(numbers: Range<HugeFrameNumber>) -> Self {
        Self(numbers)
    }

    /// Consumes the value but does not free the memory: the structure that stores the numbers owns
    /// it now.
    #[must_use]
    pub(crate) fn into_numbers(self) -> Range<HugeFrameNumber> {
        let numbers = self.0.clone();
        core::mem::forget(self);
        numbers
    }

    /// Returns the number of frames.
    pub(crate) fn frames(&self) -> FrameCount {
        FrameCount((self.0.end.0 - self.0.start.0) * HUGE_FRAMES)
    }
}

impl Drop for HugeRun {
    fn drop(&mut self) {
        debug_assert!(false, "{:?} were dropped instead of freed", self.0);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        #[cfg(not(target_os = "none"))]
        if std::thread::panicking() {
            return; // a test has failed, and says why
        }
        debug_assert!(false, "{:?} ({:?}) was dropped instead of freed", self.first, self.size);
    }
}
