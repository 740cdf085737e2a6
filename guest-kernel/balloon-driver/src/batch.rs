//! A batch: blocks of one size for one call, and their entries.

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};

use crate::sides::{Block, Reply};

/// The blocks of one call.
#[derive(Debug)]
pub(crate) struct Batch<B> {
    size: BlockSize,
    blocks: [Option<B>; CAPACITY],
    entries: [Entry; CAPACITY],
    count: usize,
}

impl<B: Block> Batch<B> {
    /// Returns an empty batch. A batch is large, so a step has one only and does not move it.
    pub(crate) fn new() -> Self {
        Self {
            size: BlockSize::Frame,
            blocks: [const { None }; CAPACITY],
            entries: [Entry::pending(FrameNumber(0), 0); CAPACITY],
            count: 0,
        }
    }

    /// Returns the size of all blocks.
    pub(crate) fn size(&self) -> BlockSize {
        self.size
    }

    /// Returns the number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the number of frames in all blocks.
    pub(crate) fn frames(&self) -> FrameCount {
        FrameCount(self.count as u64 * self.size.frames())
    }

    /// Adds a block; there must be room for it. All blocks have one size, so that the driver can
    /// estimate how long the call will take.
    pub(crate) fn push(&mut self, block: B) {
        debug_assert!(self.count == 0 || block.size() == self.size);
        self.size = block.size();
        self.entries[self.count] = Entry::pending(block.first(), block.size().order());
        self.blocks[self.count] = Some(block);
        self.count += 1;
    }

    /// Returns the entries, for a call.
    pub(crate) fn entries(&mut self) -> &mut [Entry] {
        &mut self.entries[..self.count]
    }

    /// Empties the batch: passes every block to `place`, with the status of its entry. Without a
    /// reply whose status is Ok, that is [`EntryStatus::Pending`].
    pub(crate) fn settle(&mut self, reply: Option<Reply>, mut place: impl FnMut(B, EntryStatus)) {
        let is_valid = reply.is_some_and(|reply| reply.status == Status::Ok);
        for (block, entry) in self.blocks[..self.count].iter_mut().zip(&self.entries) {
            if let Some(block) = block.take() {
                place(block, if is_valid { entry.status } else { EntryStatus::Pending });
            }
        }
        self.count = 0;
    }
}
