//! A CPU's small stock of free frames for pages. With it most page faults and evictions need no
//! lock that other CPUs want (Bonwick and Adams, "Magazines and Vmem", USENIX ATC 2001).
//!
//! A frame cache also holds *commit charges*. Taking a frame uses up one of them, so as many single
//! frames can be taken as there are charges. Frames and commit charges come from the [frame
//! allocator](super::frame_allocator) and return to it in batches. A cache never has more commit
//! charges than frames, so each charge in it is backed by a frame. Beside the single frames there
//! is room for one huge frame with all its commit charges, for the huge page that is mapped after
//! one was freed. It is put there when it is freed, and returns to the allocator with everything
//! else.

use aerostat_abi::units::HUGE_FRAMES;

use super::block::{Block, BlockSize, Contents};

/// The most single frames that a frame cache holds.
const CAPACITY: usize = 64;
/// Single frames that are moved between cache and allocator at once.
pub(crate) const BATCH: usize = CAPACITY / 2;

/// A stack of free frames. Their memory still holds what their last owners wrote.
#[derive(Debug)]
pub(crate) struct FrameCache {
    /// The first `length` places hold a frame each.
    frames: [Option<Block>; CAPACITY],
    length: usize,
    commit_charges: usize,
    /// A huge frame, with the commit charges of all its frames.
    huge: Option<Block>,
}

impl FrameCache {
    pub(crate) const EMPTY: Self =
        Self { frames: [const { None }; CAPACITY], length: 0, commit_charges: 0, huge: None };

    /// Returns the number of frames, those of the huge frame included.
    pub(crate) fn frames(&self) -> u64 {
        self.length as u64 + self.huge_frames()
    }

    /// Returns the number of commit charges.
    pub(crate) fn commit_charges(&self) -> u64 {
        self.commit_charges as u64 + self.huge_frames()
    }

    fn huge_frames(&self) -> u64 {
        if self.huge.is_some() { HUGE_FRAMES } else { 0 }
    }

    /// Returns the number of single frames.
    pub(crate) fn len(&self) -> u64 {
        self.length as u64
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length == CAPACITY
    }

    /// Takes the huge frame together with the commit charges of its frames.
    pub(crate) fn take_committed_huge(&mut self) -> Option<Block> {
        self.huge.take()
    }

    /// Adds a huge frame together with the commit charges of its frames.
    ///
    /// # Errors
    /// Returns the block when there is one already.
    pub(crate) fn put_committed_huge(&mut self, block: Block) -> Result<(), Block> {
        debug_assert_eq!(block.size(), BlockSize::Huge);
        if self.huge.is_some() {
            return Err(block);
        }
        self.huge = Some(block.with_contents(Contents::Unknown));
        Ok(())
    }

    /// Takes a single frame together with a commit charge.
    pub(crate) fn take_committed(&mut self) -> Option<Block> {
        self.commit_charges = self.commit_charges.checked_sub(1)?;
        self.length -= 1;
        self.frames[self.length].take()
    }

    /// Adds a single frame without a commit charge. The caller has checked that there is room.
    pub(crate) fn put(&mut self, block: Block) {
        debug_assert_eq!(block.size(), BlockSize::Frame);
        let is_twice = || self.frames[..self.length].iter().flatten().any(|other| other.first() == block.first());
        debug_assert!(!is_twice(), "{:?} has two owners", block.first());
        self.frames[self.length] = Some(block.with_contents(Contents::Unknown));
        self.length += 1;
    }

    /// Adds a single frame together with a commit charge.
    pub(crate) fn put_committed(&mut self, block: Block) {
        self.put(block);
        self.commit_charges += 1;
    }

    /// Accepts at most `commit_charges` commit charges, for frames that have none. Returns how
    /// many.
    pub(crate) fn accept_commit_charges(&mut self, commit_charges: u64) -> u64 {
        let accepted = commit_charges.min((self.length - self.commit_charges) as u64);
        self.commit_charges += aerostat_abi::units::to_usize(accepted);
        accepted
    }

    /// Returns how many frames [`Self::drain`] would remove, and how many commit charges have no
    /// single frames left then.
    pub(crate) fn drainable(&self, count: usize) -> (u64, u64) {
        let count = count.min(self.length);
        (count as u64, self.commit_charges.saturating_sub(self.length - count) as u64)
    }

    /// Removes up to `count` single frames, those that have been here longest, and calls `free`
    /// with each. Removes the commit charges for which no single frames are left.
    pub(crate) fn drain(&mut self, count: usize, free: impl FnMut(Block)) {
        let count = count.min(self.length);
        self.frames[..count].iter_mut().filter_map(Option::take).for_each(free);
        self.frames[..self.length].rotate_left(count);
        self.length -= count;
        self.commit_charges = self.commit_charges.min(self.length);
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, BlockSize, CAPACITY, FrameCache};
    use crate::mm::testing::block;
    use aerostat_abi::units::FrameNumber;

    fn frame(number: u64) -> Block {
        block(FrameNumber(number), BlockSize::Frame)
    }

    /// Drains up to `count` frames. Returns their numbers, and the surplus commit charges.
    fn drain(frame_cache: &mut FrameCache, count: usize) -> (Vec<u64>, u64) {
        let mut numbers = Vec::new();
        let (frames, commit_charges) = frame_cache.drainable(count);
        frame_cache.drain(count, |block| numbers.push(block.into_number().0));
        assert_eq!(numbers.len() as u64, frames);
        (numbers, commit_charges)
    }

    #[test]
    fn only_committed_frames_can_be_taken_and_the_latest_goes_first() {
        let mut frame_cache = FrameCache::EMPTY;
        frame_cache.put(frame(1));
        frame_cache.put_committed(frame(2));
        assert_eq!((frame_cache.len(), frame_cache.commit_charges()), (2, 1));
        assert_eq!(frame_cache.take_committed().map(Block::into_number), Some(FrameNumber(2)));
        assert!(frame_cache.take_committed().is_none(), "the other frame has no commit charge");
        assert_eq!((frame_cache.accept_commit_charges(5), frame_cache.commit_charges()), (1, 1));
        assert_eq!(frame_cache.take_committed().map(Block::into_number), Some(FrameNumber(1)));
        assert_eq!(frame_cache.len(), 0);
    }

    #[test]
    fn draining_returns_the_oldest_frames_and_surplus_commit_charges() {
        let mut frame_cache = FrameCache::EMPTY;
        for number in 0..CAPACITY as u64 {
            frame_cache.put_committed(frame(number));
        }
        assert!(frame_cache.is_full());
        let (drained, commit_charges) = drain(&mut frame_cache, 60);
        assert_eq!(drained, (0..60).collect::<Vec<_>>());
        assert_eq!((commit_charges, frame_cache.len(), frame_cache.commit_charges()), (60, 4, 4));
        let (drained, commit_charges) = drain(&mut frame_cache, usize::MAX);
        assert_eq!((drained.len(), commit_charges, frame_cache.len()), (4, 4, 0));
    }

    #[test]
    fn draining_uncharged_frames_keeps_the_commit_charges() {
        let mut frame_cache = FrameCache::EMPTY;
        for number in 0..10 {
            frame_cache.put(frame(number));
        }
        assert_eq!(frame_cache.accept_commit_charges(4), 4);
        let (drained, commit_charges) = drain(&mut frame_cache, 6);
        assert_eq!((drained.len(), commit_charges, frame_cache.commit_charges()), (6, 0, 4));
        assert_eq!(drain(&mut frame_cache, usize::MAX), (vec![6, 7, 8, 9], 4), "what is left has moved down");
    }

    #[test]
    fn a_huge_frame_keeps_its_commit_charges_and_a_second_is_refused() {
        let huge = |number| block(FrameNumber(number), BlockSize::Huge);
        let mut frame_cache = FrameCache::EMPTY;
        frame_cache.put(frame(1));
        assert!(frame_cache.take_committed_huge().is_none());
        assert!(frame_cache.put_committed_huge(huge(512)).is_ok());
        assert_eq!((frame_cache.len(), frame_cache.frames(), frame_cache.commit_charges()), (1, 513, 512));
        assert_eq!(frame_cache.put_committed_huge(huge(1024)).map_err(Block::into_number), Err(FrameNumber(1024)));
        assert!(frame_cache.take_committed().is_none(), "its commit charges are for its own frames");
        assert_eq!(frame_cache.take_committed_huge().map(Block::into_number), Some(FrameNumber(512)));
        assert_eq!((frame_cache.frames(), frame_cache.commit_charges()), (1, 0));
        assert_eq!(drain(&mut frame_cache, usize::MAX).0.len(), 1);
    }

    #[cfg(debug_assertions)]
    #[test]
    #[should_panic(expected = "two owners")]
    fn a_frame_freed_twice() {
        let mut frame_cache = FrameCache::EMPTY;
        frame_cache.put(frame(7));
        frame_cache.put(frame(7));
    }
}
