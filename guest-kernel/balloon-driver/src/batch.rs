//! A batch: blocks on their way, and the entries that speak of them.

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{FrameCount, FrameNumber};

use crate::sides::Block;

/// Blocks on their way, and the entries that speak of them.
#[derive(Debug)]
pub(crate) struct Batch<B> {
    blocks: [Option<B>; CAPACITY],
    entries: [Entry; CAPACITY],
    count: usize,
    frames: FrameCount,
}

impl<B: Block> Batch<B> {
    pub(crate) fn new() -> Self {
        Self {
            blocks: [const { None }; CAPACITY],
            entries: [Entry::pending(FrameNumber(0), 0); CAPACITY],
            count: 0,
            frames: FrameCount::ZERO,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.count == CAPACITY
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Frames of all blocks in it.
    pub(crate) fn frames(&self) -> FrameCount {
        self.frames
    }

    /// Adds a block; there is room for it.
    pub(crate) fn push(&mut self, block: B) {
        self.frames = self.frames.saturating_add(FrameCount(block.size().frames()));
        self.entries[self.count] = Entry::pending(block.first(), block.size().order());
        self.blocks[self.count] = Some(block);
        self.count += 1;
    }

    pub(crate) fn entries(&mut self) -> &mut [Entry] {
        &mut self.entries[..self.count]
    }

    /// Hands every block to `place`, with whether the monitor carried it out. Without a reply that says so, nothing was.
    pub(crate) fn settle(&mut self, status: Option<Status>, mut place: impl FnMut(B, bool)) {
        let is_valid = status == Some(Status::Ok);
        for (block, entry) in self.blocks[..self.count].iter_mut().zip(&self.entries) {
            if let Some(block) = block.take() {
                place(block, is_valid && entry.status == EntryStatus::Done);
            }
        }
    }
}
