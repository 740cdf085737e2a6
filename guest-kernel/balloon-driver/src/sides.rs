//! What the driver stands between: the monitor on one side, the guest's memory on the other, and the ledger in the middle.

use aerostat_abi::batch::Entry;
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};

/// A piece of memory that can be given: whoever holds the value owns the memory.
pub trait Block {
    /// The first frame.
    fn first(&self) -> FrameNumber;
    /// How large it is.
    fn size(&self) -> BlockSize;
}

/// The other side of the port. `None` stands for a monitor that doesn't answer, or not with anything that makes sense.
pub trait Monitor {
    /// Asks for the target, and for nothing else.
    fn target(&mut self) -> Option<Reply>;
    /// Hands over the entries; their statuses say what became of them.
    fn give(&mut self, entries: &mut [Entry]) -> Option<Reply>;
    /// Asks for the entries back.
    fn take(&mut self, entries: &mut [Entry]) -> Option<Reply>;
}

/// What every reply carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How the call as a whole ended.
    pub status: Status,
    /// The current target.
    pub target: FrameCount,
}

/// Where blocks come from and go to.
pub trait Memory {
    /// What it is made of.
    type Block: Block;
    /// A block for the balloon, or `None` when the guest needs what is left.
    fn allocate(&mut self, size: BlockSize) -> Option<Self::Block>;
    /// A block that the balloon could not give.
    fn free(&mut self, block: Self::Block);
    /// A block that comes back from the monitor, its memory fresh.
    fn free_unbacked(&mut self, block: Self::Block);
}

/// The frames in the balloon, owned.
pub trait Ledger {
    /// What it keeps.
    type Block: Block;
    /// Takes a block that the monitor now has.
    fn put(&mut self, block: Self::Block);
    /// Gives up a block of at most `frames` frames, to be asked back: huge while that fits, else a single frame.
    fn take(&mut self, frames: FrameCount) -> Option<Self::Block>;
    /// Frames in the balloon.
    fn size(&self) -> FrameCount;
}
