//! What the driver stands between: the monitor on one side, the guest's memory on the other, and
//! the page list in the middle.

use core::ops::Range;

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};

use crate::compaction::Compactable;

/// A piece of memory that can be given: whoever holds the value owns the memory.
pub trait Block {
    /// The first frame.
    fn first(&self) -> FrameNumber;
    /// How large it is.
    fn size(&self) -> BlockSize;
}

/// The other side of the port. `None` stands for a monitor that doesn't answer, or not with
/// anything that makes sense.
pub trait Monitor {
    /// Begins a session (HELLO). A monitor of another version has not been negotiated.
    fn negotiate(&mut self) -> Option<Reply>;
    /// Both sides know what is in the balloon: now optional parts of the protocol may be used.
    fn begin_options(&mut self);
    /// Ends the session (RESET).
    fn reset(&mut self) -> Option<Reply>;
    /// Asks which frames are given, from `from` on (LIST); the answer is in the first of the
    /// entries.
    fn list(&mut self, from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed>;
    /// Asks for the target, and for nothing else.
    fn target(&mut self) -> Option<Reply>;
    /// Hands over the entries; their statuses say what became of them.
    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply>;
    /// Asks for the entries back.
    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply>;
}

/// What every reply carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// How the call as a whole ended.
    pub status: Status,
    /// The current target.
    pub target: FrameCount,
}

/// The reply to LIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What every reply carries.
    pub reply: Reply,
    /// Entries that the monitor has written.
    pub count: usize,
    /// The frame to go on at; none at the end.
    pub next: Option<FrameNumber>,
}

/// The guest as the driver sees it: where blocks come from and go to, and a clock.
pub trait Memory {
    /// What it is made of.
    type Block: Block;
    /// The moment, in nanoseconds.
    fn now_ns(&self) -> u64;
    /// A block that is free and that nothing rests on, or `None`; one that the host backs before
    /// one that it does not.
    fn allocate(&mut self, size: BlockSize) -> Option<Self::Block>;
    /// One particular block, if it is free and the guest can do without it.
    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Self::Block>;
    /// A block that the monitor has taken by itself, from what the guest had offered it: it is in
    /// the balloon.
    fn collect_reclaimed(&mut self) -> Option<Self::Block>;
    /// A block that the balloon could not give.
    fn free(&mut self, block: Self::Block);
    /// A block that comes back from the monitor, its memory fresh.
    fn free_unbacked(&mut self, block: Self::Block);
    /// Up to so many huge frames that the driver could have if pages were moved together.
    fn compactable(&mut self, wanted: usize) -> Compactable;
    /// Moves pages together until so many huge frames are whole, if that can be; says how many have
    /// become so.
    fn compact(&mut self, wanted: usize) -> usize;
    /// Has the guest put some pages elsewhere. A step of bounded length: it is called again for
    /// more.
    fn make_room(&mut self) -> Room;
    /// Whether somebody in the guest waits for memory, or has waited in vain since this was asked
    /// last.
    fn is_short(&mut self) -> bool;
}

/// What came of an attempt to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Some frames came free.
    Made,
    /// The guest brings back what it has just put elsewhere: to take more would stop it.
    Thrashing,
    /// Nothing can go.
    Nothing,
}

/// The frames in the balloon, owned.
pub trait PageList {
    /// What it keeps.
    type Block: Block;
    /// Takes a block that the monitor now has.
    fn put(&mut self, block: Self::Block);
    /// Gives up a block of at most `frames` frames, to be asked back: huge while that fits, else a
    /// single frame.
    fn take(&mut self, frames: FrameCount) -> Option<Self::Block>;
    /// Gives up the lowest block that lies within `range`, as large as that may be.
    fn take_within(&mut self, range: Range<FrameNumber>) -> Option<Self::Block>;
    /// Whether it has all of a block.
    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool;
    /// Frames in the balloon.
    fn size(&self) -> FrameCount;
}
