//! A CPU's small stock of frames for pages, so that most page faults and evictions need no lock that other CPUs want
//! (Bonwick and Adams, "Magazines and Vmem", USENIX ATC 2001).
//!
//! Of the single frames in a magazine, as many as it holds *promises* may be taken: taking one keeps a promise. Frames and promises
//! come from the [frame allocator](super::frame_allocator) and go back there in batches; there are never more promises than
//! frames, so a promise in a magazine is sure. Beside them there is room for one huge frame with all its promises, for the next huge page
//! after one that went: it comes from whoever freed it, and goes back to the allocator with everything else.

use aerostat_abi::units::{FrameNumber, HUGE_FRAMES};

use super::block::{Block, BlockSize, Contents};

/// Frames that a magazine holds at most.
const CAPACITY: usize = 64;
/// Frames that come and go at once.
pub(crate) const BATCH: usize = CAPACITY / 2;

/// A stack of free frames whose memory holds what their last owners left.
#[derive(Debug)]
pub(crate) struct Magazine {
    frames: [FrameNumber; CAPACITY],
    length: usize,
    promises: usize,
    /// A huge frame, with the promises of all its frames.
    huge: Option<FrameNumber>,
}

impl Magazine {
    pub(crate) const EMPTY: Self = Self { frames: [FrameNumber(0); CAPACITY], length: 0, promises: 0, huge: None };

    /// Frames in it, single ones and those of the huge one.
    pub(crate) fn frames(&self) -> u64 {
        self.length as u64 + self.huge_frames()
    }

    /// Promises that it can keep.
    pub(crate) fn promises(&self) -> u64 {
        self.promises as u64 + self.huge_frames()
    }

    fn huge_frames(&self) -> u64 {
        if self.huge.is_some() { HUGE_FRAMES } else { 0 }
    }

    /// Single frames in it.
    pub(crate) fn len(&self) -> u64 {
        self.length as u64
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length == CAPACITY
    }

    /// A huge frame that keeps as many promises as it has frames.
    pub(crate) fn take_promised_huge(&mut self) -> Option<Block> {
        self.huge.take().map(|first| Block::from_number(first, BlockSize::Huge, Contents::Unknown))
    }

    /// Adds a huge frame together with the promises of its frames.
    ///
    /// # Errors
    /// The block comes back when there is one already.
    pub(crate) fn put_promised_huge(&mut self, block: Block) -> Result<(), Block> {
        debug_assert_eq!(block.size(), BlockSize::Huge);
        if self.huge.is_some() {
            return Err(block);
        }
        self.huge = Some(block.into_number());
        Ok(())
    }

    /// A single frame that keeps a promise.
    pub(crate) fn take_promised(&mut self) -> Option<Block> {
        self.promises = self.promises.checked_sub(1)?;
        self.length -= 1;
        Some(Block::from_number(self.frames[self.length], BlockSize::Frame, Contents::Unknown))
    }

    /// Adds a single frame that nobody was promised. The caller has seen that there is room.
    pub(crate) fn put(&mut self, block: Block) {
        debug_assert_eq!(block.size(), BlockSize::Frame);
        let frame = block.into_number();
        debug_assert!(!self.frames[..self.length].contains(&frame), "{frame:?} has two owners");
        self.frames[self.length] = frame;
        self.length += 1;
    }

    /// Adds a frame together with the promise of one.
    pub(crate) fn put_promised(&mut self, block: Block) {
        self.put(block);
        self.promises += 1;
    }

    /// Takes promises over for frames that have none, `promises` at most; says how many.
    pub(crate) fn accept_promises(&mut self, promises: u64) -> u64 {
        let accepted = promises.min((self.length - self.promises) as u64);
        self.promises += aerostat_abi::units::to_usize(accepted);
        accepted
    }

    /// Gives up to `count` single frames back, those that have been here longest, and the promises that it then has no frames for.
    pub(crate) fn give_back(&mut self, count: usize) -> (impl Iterator<Item = Block> + use<>, u64) {
        let count = count.min(self.length);
        let given = self.frames;
        self.frames.copy_within(count..self.length, 0);
        self.length -= count;
        let promises = self.promises.saturating_sub(self.length);
        self.promises -= promises;
        let block = |frame| Block::from_number(frame, BlockSize::Frame, Contents::Unknown);
        (given.into_iter().take(count).map(block), promises as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, BlockSize, CAPACITY, Contents, FrameNumber, Magazine};

    fn frame(number: u64) -> Block {
        Block::from_number(FrameNumber(number), BlockSize::Frame, Contents::Unknown)
    }

    #[test]
    fn only_promised_frames_can_be_taken_and_the_latest_goes_first() {
        let mut magazine = Magazine::EMPTY;
        magazine.put(frame(1));
        magazine.put_promised(frame(2));
        assert_eq!((magazine.len(), magazine.promises()), (2, 1));
        assert_eq!(magazine.take_promised().map(Block::into_number), Some(FrameNumber(2)));
        assert!(magazine.take_promised().is_none(), "the other is nobody's");
        assert_eq!((magazine.accept_promises(5), magazine.promises()), (1, 1));
        assert_eq!(magazine.take_promised().map(Block::into_number), Some(FrameNumber(1)));
        assert_eq!(magazine.len(), 0);
    }

    #[test]
    fn the_oldest_go_back_with_promises_that_lost_their_frames() {
        let mut magazine = Magazine::EMPTY;
        for number in 0..CAPACITY as u64 {
            magazine.put_promised(frame(number));
        }
        assert!(magazine.is_full());
        let (given, promises) = magazine.give_back(60);
        assert_eq!(given.map(|block| block.into_number().0).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert_eq!((promises, magazine.len(), magazine.promises()), (60, 4, 4));
        let (given, promises) = magazine.give_back(usize::MAX);
        assert_eq!((given.map(Block::into_number).count(), promises, magazine.len()), (4, 4, 0));
    }

    #[test]
    fn frames_without_promises_leave_promises_behind() {
        let mut magazine = Magazine::EMPTY;
        for number in 0..10 {
            magazine.put(frame(number));
        }
        assert_eq!(magazine.accept_promises(4), 4);
        let (given, promises) = magazine.give_back(6);
        assert_eq!((given.map(Block::into_number).count(), promises, magazine.promises()), (6, 0, 4));
    }

    #[test]
    fn a_huge_frame_keeps_all_its_promises_and_a_second_one_is_refused() {
        let huge = |number| Block::from_number(FrameNumber(number), BlockSize::Huge, Contents::Unknown);
        let mut magazine = Magazine::EMPTY;
        magazine.put(frame(1));
        assert!(magazine.take_promised_huge().is_none());
        assert!(magazine.put_promised_huge(huge(512)).is_ok());
        assert_eq!((magazine.len(), magazine.frames(), magazine.promises()), (1, 513, 512));
        assert_eq!(magazine.put_promised_huge(huge(1024)).map_err(Block::into_number), Err(FrameNumber(1024)));
        assert!(magazine.take_promised().is_none(), "its promises are for its own frames");
        assert_eq!(magazine.take_promised_huge().map(Block::into_number), Some(FrameNumber(512)));
        assert_eq!((magazine.frames(), magazine.promises()), (1, 0));
        assert_eq!(magazine.give_back(usize::MAX).0.map(Block::into_number).count(), 1);
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "two owners")]
    fn a_frame_freed_twice() {
        let mut magazine = Magazine::EMPTY;
        magazine.put(frame(7));
        magazine.put(frame(7));
    }
}
