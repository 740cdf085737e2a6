//! The driver's two sides, the monitor and the guest's memory, and the page list between them.

use core::ops::Range;

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};

use crate::compaction::Compactable;

/// A piece of memory that can be ballooned. The value owns the memory.
pub trait Block {
    /// Huge frames in a row, as one value that owns them.
    type Run;
    /// Returns the first frame.
    fn first(&self) -> FrameNumber;
    /// Returns the block's size.
    fn size(&self) -> BlockSize;
}

/// The monitor. A method returns `None` when the monitor does not answer, or not with a valid
/// reply.
pub trait Monitor {
    /// Opens a session (HELLO). A monitor that speaks another version opens none.
    fn negotiate(&mut self) -> Option<Reply>;
    /// Enables optional parts of the protocol. Called when both sides agree on what is in the
    /// balloon.
    fn enable_features(&mut self);
    /// Ends the session (RESET).
    fn reset(&mut self) -> Option<Reply>;
    /// Asks which frames are ballooned, from `from` on (LIST). The answer is in the first of the
    /// entries.
    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed>;
    /// Asks for the target only.
    fn target(&mut self) -> Option<Reply>;
    /// Inflates the entries' blocks; the outcome of each is in its status.
    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply>;
    /// Deflates the entries' blocks; the outcome of each is in its status.
    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply>;
}

/// The parts that every reply has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The outcome of the call as a whole.
    pub status: Status,
    /// The current target.
    pub target: FrameCount,
}

/// The reply to LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The parts that every reply has.
    pub reply: Reply,
    /// The number of entries that the monitor has written.
    pub count: usize,
    /// The frame to continue at, or `None` at the end.
    pub next: Option<FrameNumber>,
}

/// The guest as the driver sees it: where blocks come from and go to, and a clock.
pub trait Memory {
    /// A piece of this memory.
    type Block: Block;
    /// Returns the time in nanoseconds.
    fn now_ns(&self) -> u64;
    /// Allocates a free block that no commit charge and no reserve needs. Blocks that the host
    /// backs come first.
    fn allocate(&mut self, size: BlockSize) -> Option<Self::Block>;
    /// Allocates one particular block, if it is free and can be spared.
    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Self::Block>;
    /// Allocates all huge frames within `frames`, whose borders are aligned, if all of them are
    /// free and can be spared; `None` also where that would take as long as to claim each.
    fn claim_run(&mut self, frames: Range<FrameNumber>) -> Option<<Self::Block as Block>::Run>;
    /// Returns a block that the host has reclaimed from the guest's offers and that the driver has
    /// not noted yet: it is in the balloon.
    fn collect_reclaimed(&mut self) -> Option<Self::Block>;
    /// Frees a block that was allocated and not ballooned.
    fn free(&mut self, block: Self::Block);
    /// Frees a block that was deflated: the host does not back it. Whether it reads as zero depends
    /// on the host, which the memory knows.
    fn free_unbacked(&mut self, block: Self::Block);
    /// Returns how many huge frames, at most `wanted`, moving pages could make whole for the
    /// driver, and how many pages would have to move.
    fn compactable(&mut self, wanted: usize) -> Compactable;
    /// Moves pages until `wanted` huge frames are whole, as far as possible. Returns how many
    /// became whole.
    fn compact(&mut self, wanted: usize) -> usize;
    /// Evicts some pages where no frame is free, or, for a huge frame, in any case. The length of a
    /// call is bounded; the driver calls again for more.
    fn make_room(&mut self, size: BlockSize) -> Room;
    /// Returns whether a thread of the guest waits for memory, or an allocation has failed since
    /// the last call.
    fn has_waiters(&mut self) -> bool;
}

/// The outcome of an attempt to evict pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Some frames became free.
    Made,
    /// Nothing was evicted: the guest restores pages soon after they were evicted.
    Thrashing,
    /// No page can be evicted.
    Nothing,
}

/// The frames in the balloon, owned.
pub trait PageList {
    /// A piece of the balloon.
    type Block: Block;
    /// Adds a block that is ballooned now.
    fn insert(&mut self, block: Self::Block);
    /// Adds huge frames that are ballooned now.
    fn insert_run(&mut self, run: <Self::Block as Block>::Run);
    /// Removes a block of at most `frames` frames, for DEFLATE: a huge frame where that fits, else
    /// a single frame.
    fn remove(&mut self, frames: FrameCount) -> Option<Self::Block>;
    /// Removes the lowest block within `range`, as large as possible.
    fn remove_within(&mut self, range: Range<FrameNumber>) -> Option<Self::Block>;
    /// Returns whether the whole block is in the list.
    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool;
    /// Returns the balloon size.
    fn size(&self) -> FrameCount;
}
