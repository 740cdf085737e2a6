//! A set of frames with one flag for each, and the blocks in it. It serves as free memory, as a
//! page list and as a host's view of the balloon.

use core::ops::Range;
use std::vec::Vec;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use crate::sides::{Block, PageList};

/// An owned block.
#[derive(Debug)]
pub(crate) struct TestBlock {
    pub(super) first: FrameNumber,
    pub(super) size: BlockSize,
}

impl TestBlock {
    fn frames(&self) -> Range<u64> {
        self.first.0..self.first.0 + self.size.frames()
    }
}

impl Block for TestBlock {
    type Run = Vec<Self>;

    fn first(&self) -> FrameNumber {
        self.first
    }

    fn size(&self) -> BlockSize {
        self.size
    }
}

/// A set of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameSet {
    pub(super) members: Vec<bool>,
    /// Members of each huge frame.
    pub(super) counts: Vec<u64>,
}

impl FrameSet {
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

    /// Removes a frame. Returns whether it was a member.
    pub(crate) fn remove(&mut self, frame: u64) -> bool {
        let was_member = core::mem::replace(&mut self.members[to_usize(frame)], false);
        self.counts[to_usize(frame / HUGE_FRAMES)] -= u64::from(was_member);
        was_member
    }

    /// Removes the lowest block of a size; single frames come from partial huge frames first.
    pub(crate) fn take(&mut self, size: BlockSize) -> Option<TestBlock> {
        let whole = self.counts.iter().position(|count| *count == HUGE_FRAMES);
        let partial = self.counts.iter().position(|count| (1..HUGE_FRAMES).contains(count));
        let huge = if size == BlockSize::Huge { whole? } else { partial.or(whole)? } as u64;
        let first = (huge * HUGE_FRAMES..(huge + 1) * HUGE_FRAMES).find(|frame| self.contains(*frame))?;
        self.take_at(FrameNumber(first), size)
    }

    /// Removes one particular block, if all of it is in the set.
    pub(crate) fn take_at(&mut self, first: FrameNumber, size: BlockSize) -> Option<TestBlock> {
        let block = TestBlock { first, size };
        if !block.frames().all(|frame| self.contains(frame)) {
            return None;
        }
        block.frames().for_each(|frame| assert!(self.remove(frame)));
        Some(block)
    }

    pub(crate) fn put(&mut self, block: &TestBlock) {
        block.frames().for_each(|frame| self.insert(frame));
    }

    /// Returns blocks from frame `from` on, ascending and no larger than a huge frame.
    pub(super) fn blocks(&self, from: u64) -> impl Iterator<Item = Entry> {
        let mut at = from;
        core::iter::from_fn(move || {
            let first = (at..self.members.len() as u64).find(|frame| self.contains(*frame))?;
            let is_whole =
                first.is_multiple_of(HUGE_FRAMES) && self.counts[to_usize(first / HUGE_FRAMES)] == HUGE_FRAMES;
            let size = if is_whole { BlockSize::Huge } else { BlockSize::Frame };
            at = first + size.frames();
            Some(Entry { frame: FrameNumber(first), order: size.order(), status: EntryStatus::Done })
        })
    }
}

impl PageList for FrameSet {
    type Block = TestBlock;

    fn insert(&mut self, block: TestBlock) {
        Self::put(self, &block);
    }

    fn insert_run(&mut self, run: Vec<TestBlock>) {
        run.iter().for_each(|block| Self::put(self, block));
    }

    fn remove(&mut self, frames: FrameCount) -> Option<TestBlock> {
        let huge = if frames.0 >= HUGE_FRAMES { Self::take(self, BlockSize::Huge) } else { None };
        huge.or_else(|| (frames.0 > 0).then(|| Self::take(self, BlockSize::Frame)).flatten())
    }

    fn remove_within(&mut self, range: Range<FrameNumber>) -> Option<TestBlock> {
        let first = FrameNumber((range.start.0..range.end.0).find(|frame| self.contains(*frame))?);
        let fits = first.is_aligned(BlockSize::Huge.order()) && first.0 + HUGE_FRAMES <= range.end.0;
        let huge = if fits { self.take_at(first, BlockSize::Huge) } else { None };
        huge.or_else(|| self.take_at(first, BlockSize::Frame))
    }

    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool {
        (first.0..first.0 + size.frames()).all(|frame| self.contains(frame))
    }

    fn size(&self) -> FrameCount {
        self.len()
    }
}
