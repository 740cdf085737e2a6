//! The application's page list: its ballooned blocks, in a list for each size. Both lists have room
//! for all memory from the start, because a guest that inflates has no memory left to grow a list.

use alloc::vec::Vec;
use core::convert::Infallible;
use core::ops::Range;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, to_usize};
use aerostat_guest::app::memory::{OutOfMemory, Pinned};

/// The ballooned blocks, by size and in ascending order.
#[derive(Debug)]
pub(crate) struct PageList {
    huge: Vec<Pinned>,
    frames: Vec<Pinned>,
}

impl PageList {
    /// Returns an empty page list with room for all memory of a guest.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the guest has no memory for the lists.
    pub(crate) fn new(total: FrameCount) -> Result<Self, OutOfMemory> {
        let room = |blocks| {
            let mut list = Vec::new();
            list.try_reserve_exact(to_usize(blocks)).map(|()| list).map_err(|_| OutOfMemory)
        };
        Ok(Self { huge: room(total.0 / HUGE_FRAMES)?, frames: room(total.0)? })
    }

    /// Splits the huge frame that has `border` inside into single frames.
    fn split_at(&mut self, border: FrameNumber) {
        if border.is_aligned(HUGE_ORDER) {
            return;
        }
        if let Ok(index) = find(&self.huge, huge_frame_of(border)) {
            let frames = self.huge.remove(index).split();
            frames.for_each(|frame| insert(&mut self.frames, frame));
        }
    }
}

impl aerostat_balloon_driver::PageList for PageList {
    type Block = Pinned;

    fn insert(&mut self, block: Pinned) {
        match block.size() {
            BlockSize::Huge => insert(&mut self.huge, block),
            BlockSize::Frame => insert(&mut self.frames, block),
        }
    }

    fn insert_run(&mut self, run: Infallible) {
        match run {}
    }

    fn remove(&mut self, frames: FrameCount) -> Option<Pinned> {
        if frames.0 >= HUGE_FRAMES && !self.huge.is_empty() {
            return self.huge.pop();
        }
        if frames == FrameCount::ZERO {
            return None;
        }
        if self.frames.is_empty() {
            self.frames.extend(self.huge.pop()?.split());
        }
        self.frames.pop()
    }

    fn remove_within(&mut self, range: Range<FrameNumber>) -> Option<Pinned> {
        self.split_at(range.start);
        self.split_at(range.end);
        let lowest = |list: &[Pinned]| {
            let index = find(list, range.start).unwrap_or_else(|next| next);
            list.get(index).map(Pinned::first).filter(|first| *first < range.end).map(|first| (first, index))
        };
        match (lowest(&self.huge), lowest(&self.frames)) {
            (Some((huge, index)), frame) if frame.is_none_or(|(frame, _)| huge < frame) => {
                Some(self.huge.remove(index))
            }
            (_, Some((_, index))) => Some(self.frames.remove(index)),
            _ => None,
        }
    }

    fn contains(&self, first: FrameNumber, size: BlockSize) -> bool {
        let is_huge = find(&self.huge, huge_frame_of(first)).is_ok();
        match size {
            BlockSize::Huge => is_huge,
            BlockSize::Frame => is_huge || find(&self.frames, first).is_ok(),
        }
    }

    fn size(&self) -> FrameCount {
        FrameCount(self.huge.len() as u64 * HUGE_FRAMES + self.frames.len() as u64)
    }
}

/// Returns the index of the block that begins at `first`, or the index where it would be.
fn find(list: &[Pinned], first: FrameNumber) -> Result<usize, usize> {
    list.binary_search_by_key(&first, Pinned::first)
}

/// Inserts a block in order. This is usually at the end, because memory is allocated from low
/// addresses up.
fn insert(list: &mut Vec<Pinned>, block: Pinned) {
    let index = find(list, block.first()).unwrap_or_else(|next| next);
    list.insert(index, block);
}

/// Returns the first frame of the huge frame that has `frame`.
fn huge_frame_of(frame: FrameNumber) -> FrameNumber {
    FrameNumber(frame.0 / HUGE_FRAMES * HUGE_FRAMES)
}
