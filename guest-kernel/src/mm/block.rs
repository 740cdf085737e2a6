//! Owned memory: a [`Block`] is one frame or one huge frame, and whoever holds the value owns the
//! memory.
//!
//! A block is in exactly one place: in the allocator (then there is no value), in somebody's hands,
//! behind a page table entry, or in the balloon's page list. Moving the value is the transition;
//! [`Block::into_number`] and [`Block::from_number`] are the two doors through which ownership
//! enters and leaves page tables and page list.

pub(crate) use aerostat_abi::units::BlockSize;
use aerostat_abi::units::FrameNumber;

/// What is in a block's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// All zero: the host has not backed it since it last had it.
    Zero,
    /// Whatever its last owner left.
    Unknown,
}

/// An owned frame or huge frame. Must be freed, mapped or put into the page list: dropping one
/// loses memory.
#[derive(Debug)]
#[must_use = "a block that is dropped is lost memory"]
pub(crate) struct Block {
    first: FrameNumber,
    size: BlockSize,
    contents: Contents,
}

impl Block {
    /// Takes ownership of the block that begins at `first`: the caller knows that nobody else owns
    /// it.
    pub(crate) fn from_number(first: FrameNumber, size: BlockSize, contents: Contents) -> Self {
        debug_assert!(first.is_aligned(size.order()));
        Self { first, size, contents }
    }

    /// Gives up the value but not the memory: it now belongs to whatever structure remembers the
    /// number.
    #[must_use]
    pub(crate) fn into_number(self) -> FrameNumber {
        let first = self.first;
        core::mem::forget(self);
        first
    }

    /// The first frame.
    #[must_use]
    pub(crate) fn first(&self) -> FrameNumber {
        self.first
    }

    /// How large it is.
    #[must_use]
    pub(crate) fn size(&self) -> BlockSize {
        self.size
    }

    /// What is in it.
    #[must_use]
    pub(crate) fn contents(&self) -> Contents {
        self.contents
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        debug_assert!(false, "{:?} ({:?}) was dropped instead of freed", self.first, self.size);
    }
}
