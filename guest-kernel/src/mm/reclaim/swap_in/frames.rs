//! Frames on their way in: what a disk reads into them, they will be mapped with.

use aerostat_abi::units::{FRAME_BYTES, FrameNumber};

use crate::config::{MAX_READ_AHEAD, READ_AHEAD};
use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::pressure::Stall;
use crate::mm::reclaim::RECLAIMER;
use crate::mm::reclaim::swap::disk::{Direction, Disk, DiskError, MAX_TRANSFER, Ticket};
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::{FRAMES, OutOfMemory, fault, slow_path};

const _: () = assert!(MAX_READ_AHEAD <= MAX_TRANSFER);

/// Who wants a page back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread that has touched it: others are evicted for it if need be.
    Fault,
    /// A thread that is going to touch it: it comes if there is a frame to spare.
    Prefetch,
}

impl Caller {
    pub(crate) fn frame(self, purpose: Purpose) -> Result<Block, OutOfMemory> {
        match self {
            Self::Fault => slow_path::frame_for_fault(purpose),
            Self::Prefetch => fault::spare_block(BlockSize::Frame, purpose).ok_or(OutOfMemory),
        }
    }

    /// That somebody waits for a disk; a caller that only looks ahead does not count.
    pub(crate) fn stall(self) -> Option<Stall> {
        (self == Self::Fault).then(|| {
            fault::count_major();
            Stall::begin()
        })
    }
}

/// A read that begins so little behind the end of the last goes on with it: what lies between is in
/// memory already.
pub(crate) const GAP_BYTES: u64 = 16 * FRAME_BYTES;

/// How much is read at once: more, when one read begins where another has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window(usize);

impl Window {
    /// Of a read that goes on with no other.
    const FIRST: Self = Self(READ_AHEAD);

    pub(crate) fn slots(self) -> usize {
        self.0
    }

    /// Of the read that goes on with this one.
    pub(crate) fn next(self) -> Self {
        Self((2 * self.0).min(MAX_READ_AHEAD))
    }

    /// Whether the read goes on with another.
    pub(crate) fn is_sequential(self) -> bool {
        self.0 > READ_AHEAD
    }
}

/// Finds out whether reads go on with each other. Positions are bytes of whatever is read in order,
/// be it memory or a disk.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    next: u64,
    window: Window,
}

impl ReadAhead {
    pub(crate) const fn new() -> Self {
        Self { next: u64::MAX, window: Window::FIRST }
    }

    /// The window of a read at `position`.
    pub(crate) fn window_at(&mut self, position: u64) -> Window {
        let goes_on = position.checked_sub(self.next).is_some_and(|gap| gap <= GAP_BYTES);
        self.window = if goes_on { self.window.next() } else { Window::FIRST };
        self.window
    }

    /// Notes that what lies before `position` was read, or is about to be.
    pub(crate) fn has_read_to(&mut self, position: u64) {
        self.next = position;
    }
}

/// Frames that are read into, owned; what has not been taken is given back when they go.
pub(crate) struct Frames {
    pub(crate) blocks: [Option<Block>; MAX_READ_AHEAD],
    pub(crate) purpose: Purpose,
    pub(crate) count: usize,
}

impl Frames {
    /// `first`, what else is needed to have `least`, and as many more as can be spared, `most` in
    /// all.
    ///
    /// # Errors
    /// When there are not even the least.
    pub(crate) fn with(
        first: Block,
        least: usize,
        most: usize,
        purpose: Purpose,
        caller: Caller,
    ) -> Result<Self, OutOfMemory> {
        let mut frames = Self { blocks: [const { None }; MAX_READ_AHEAD], purpose, count: 0 };
        frames.push(first);
        while frames.count < least {
            frames.push(caller.frame(purpose)?);
        }
        while frames.count < most
            && let Some(block) = fault::spare_block(BlockSize::Frame, purpose)
        {
            frames.push(block);
        }
        // Frames that follow each other are one part of a request.
        frames.blocks[..frames.count].sort_unstable_by_key(|block| block.as_ref().map(|block| block.first().0));
        Ok(frames)
    }

    fn push(&mut self, block: Block) {
        self.blocks[self.count] = Some(block);
        self.count += 1;
    }

    fn numbers(&self) -> [FrameNumber; MAX_READ_AHEAD] {
        core::array::from_fn(|place| self.blocks[place].as_ref().map_or(FrameNumber(0), Block::first))
    }

    pub(crate) fn take(&mut self, place: usize) -> Option<Block> {
        self.blocks[place].take()
    }

    /// Gives back what is left from `place` on.
    pub(crate) fn free_from(&mut self, place: usize) {
        for block in self.blocks[place..].iter_mut().filter_map(Option::take) {
            free(block, self.purpose);
        }
        self.count = self.count.min(place);
    }

    /// Has the disk read its slots from `first` on into the frames, and waits for it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub(crate) fn fill_from(&self, disk: &dyn Disk, first: SlotNumber) -> Result<(), DiskError> {
        finish_read(disk, self.begin_read(disk, first))
    }

    /// Has the disk begin to read its slots from `first` on into the frames, once it has room for
    /// that.
    pub(crate) fn begin_read(&self, disk: &dyn Disk, first: SlotNumber) -> Ticket {
        loop {
            if let Some(ticket) = self.submit_read(disk, first) {
                return ticket;
            }
            // Somebody has to redeem what fills the queue; what is nobody's errand is redeemed
            // here.
            RECLAIMER.lock().settle();
            disk.wait_for_room();
        }
    }

    /// The same, if it has room now.
    pub(crate) fn submit_read(&self, disk: &dyn Disk, first: SlotNumber) -> Option<Ticket> {
        disk.submit(Direction::Read, first, &self.numbers()[..self.count])
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.free_from(0);
    }
}

/// Waits until a read has ended.
///
/// # Errors
/// [`DiskError`].
pub(crate) fn finish_read(disk: &dyn Disk, ticket: Ticket) -> Result<(), DiskError> {
    loop {
        match disk.result(ticket) {
            Some(result) => return result,
            None => disk.wait(ticket),
        }
    }
}

/// Gives back a frame that nobody has come to need.
pub(crate) fn free(block: Block, purpose: Purpose) {
    match purpose {
        Purpose::CompressedPool | Purpose::File => FRAMES.free_in_headroom(block),
        _ => FRAMES.free_committed(block),
    }
}
