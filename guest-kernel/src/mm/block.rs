//! Owned memory: a [`Block`] is one frame or one huge frame, and the holder of the value owns the
//! memory.
//!
//! A block is in exactly one place: in the allocator (then there is no value), held by code that
//! uses it, behind a page table entry, or in the balloon's page list. Moving the value is the
//! transition. Ownership enters and leaves page tables and page list only through
//! [`Block::into_number`] and [`Block::from_number`].

pub(crate) use aerostat_abi::units::BlockSize;
use aerostat_abi::units::FrameNumber;

/// What is in a block's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// All zero: the host has not backed it since it last had it.
    Zero,
    /// What its last owner left.
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
    /// Takes ownership of the block that begins at `first`. The caller knows that no other owner
    /// exists.
    pub(crate) fn from_number(first: FrameNumber, size: BlockSize, contents: Contents) -> Self {
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

impl Drop for Block {
    fn drop(&mut self) {
        debug_assert!(false, "{:?} ({:?}) was dropped instead of freed", self.first, self.size);
    }
}
