//! What a block is allocated for, and so which free frames are open to the allocation.

/// What a block is allocated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The kernel's own needs (page tables, stacks): all that is not committed, the kernel's floor
    /// included.
    Kernel,
    /// Memory that was committed: the commit shrinks by the block. Where swap headroom backs commit
    /// charges, the last reserve is not open to it, because eviction needs that.
    Committed,
    /// Committed memory that is never moved, such as a stack; otherwise as [`Self::Committed`].
    CommittedPinned,
    /// Committed memory without which eviction, or a page that has its frame already, could not go
    /// on: any free frame.
    CommittedReserve,
    /// The compressed pool: any free frame. The pool can be emptied to disk, so it counts as swap
    /// headroom.
    CompressedPool,
    /// A page of a file. It can be dropped at any time, and so counts as swap headroom. The last
    /// reserve is not open to it.
    File,
    /// The balloon: what is neither committed nor the kernel's floor.
    Balloon,
    /// Something that the kernel can do without, such as a huge page in place of small ones: the
    /// same frames as for the balloon.
    Spare,
}
