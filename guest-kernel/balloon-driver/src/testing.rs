//! What the tests put the driver between: a guest's memory, kept as one flag a frame, and a ledger of the same make.

extern crate std;

use std::vec::Vec;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use crate::sides::{Block, Ledger, Memory};

/// An owned block.
#[derive(Debug)]
pub(crate) struct TestBlock {
    first: FrameNumber,
    size: BlockSize,
}

impl TestBlock {
    fn frames(&self) -> core::ops::Range<u64> {
        self.first.0..self.first.0 + self.size.frames()
    }
}

impl Block for TestBlock {
    fn first(&self) -> FrameNumber {
        self.first
    }

    fn size(&self) -> BlockSize {
        self.size
    }
}

/// A set of frames.
#[derive(Clone, Debug)]
pub(crate) struct FrameBook {
    members: Vec<bool>,
    /// Members of each huge frame.
    counts: Vec<u64>,
}

impl FrameBook {
    pub(crate) fn empty(total: FrameCount) -> Self {
        let huge = to_usize(total.0 / HUGE_FRAMES);
        Self { members: std::vec![false; to_usize(total.0)], counts: std::vec![0; huge] }
    }

    pub(crate) fn full(total: FrameCount) -> Self {
        let huge = to_usize(total.0 / HUGE_FRAMES);
        Self { members: std::vec![true; to_usize(total.0)], counts: std::vec![HUGE_FRAMES; huge] }
    }

    pub(crate) fn len(&self) -> FrameCount {
        FrameCount(self.counts.iter().sum())
    }

    pub(crate) fn contains(&self, frame: u64) -> bool {
        self.members[to_usize(frame)]
    }

    pub(crate) fn insert(&mut self, frame: u64) {
        assert!(!core::mem::replace(&mut self.members[to_usize(frame)], true), "frame {frame} is in two places");
        self.counts[to_usize(frame / HUGE_FRAMES)] += 1;
    }

    /// Takes a frame out; says whether it was there.
    pub(crate) fn remove(&mut self, frame: u64) -> bool {
        let was_there = core::mem::replace(&mut self.members[to_usize(frame)], false);
        self.counts[to_usize(frame / HUGE_FRAMES)] -= u64::from(was_there);
        was_there
    }

    /// Takes the lowest block of a size out; frames out of broken huge frames first.
    pub(crate) fn take(&mut self, size: BlockSize) -> Option<TestBlock> {
        let whole = self.counts.iter().position(|count| *count == HUGE_FRAMES);
        let huge = match size {
            BlockSize::Huge => whole?,
            BlockSize::Frame => self.counts.iter().position(|count| (1..HUGE_FRAMES).contains(count)).or(whole)?,
        } as u64;
        let first = (huge * HUGE_FRAMES..(huge + 1) * HUGE_FRAMES).find(|frame| self.contains(*frame))?;
        let block = TestBlock { first: FrameNumber(first), size };
        block.frames().for_each(|frame| assert!(self.remove(frame)));
        Some(block)
    }

    pub(crate) fn put(&mut self, block: &TestBlock) {
        block.frames().for_each(|frame| self.insert(frame));
    }
}

impl Ledger for FrameBook {
    type Block = TestBlock;

    fn put(&mut self, block: TestBlock) {
        Self::put(self, &block);
    }

    fn take(&mut self, frames: FrameCount) -> Option<TestBlock> {
        let huge = if frames.0 >= HUGE_FRAMES { Self::take(self, BlockSize::Huge) } else { None };
        huge.or_else(|| (frames.0 > 0).then(|| Self::take(self, BlockSize::Frame)).flatten())
    }

    fn size(&self) -> FrameCount {
        self.len()
    }
}

/// A guest's memory, of which some frames are kept for its kernel.
#[derive(Debug)]
pub(crate) struct TestMemory {
    pub(crate) free: FrameBook,
    pub(crate) kernel_floor: FrameCount,
    /// Frames that came back from the monitor.
    pub(crate) came_back: u64,
}

impl TestMemory {
    pub(crate) fn new(total: FrameCount, kernel_floor: FrameCount) -> Self {
        Self { free: FrameBook::full(total), kernel_floor, came_back: 0 }
    }

    /// A frame for the rest of the guest.
    pub(crate) fn use_frame(&mut self) -> Option<TestBlock> {
        self.free.take(BlockSize::Frame)
    }
}

impl Memory for TestMemory {
    type Block = TestBlock;

    fn allocate(&mut self, size: BlockSize) -> Option<TestBlock> {
        let open = self.free.len().saturating_sub(self.kernel_floor);
        (open.0 >= size.frames()).then(|| self.free.take(size)).flatten()
    }

    fn free(&mut self, block: TestBlock) {
        self.free.put(&block);
    }

    fn free_unbacked(&mut self, block: TestBlock) {
        self.came_back += block.size.frames();
        self.free.put(&block);
    }
}
