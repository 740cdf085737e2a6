//! A guest's memory.

use core::ops::Range;
use std::vec::Vec;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use super::clock::Clock;
use super::frame_set::{FrameSet, TestBlock};
use crate::compaction::Compactable;
use crate::sides::{Memory, Room};

/// Pages that one call evicts.
const PAGES_EVICTED_AT_ONCE: usize = 64;

/// A guest's memory, of which some frames are reserved for its kernel.
#[derive(Debug)]
pub(crate) struct TestMemory {
    pub(crate) clock: Clock,
    pub(crate) free: FrameSet,
    kernel_floor: FrameCount,
    /// Blocks that the rest of the guest uses.
    pub(crate) in_use: Vec<TestBlock>,
    /// Whether these can be evicted.
    pub(crate) can_swap: bool,
    /// Whether frames with even numbers are evicted first, so that no huge frame becomes whole.
    pub(crate) is_scattered: bool,
    /// The cost of a call that evicts.
    pub(crate) room_ns: u64,
    pub(crate) is_thrashing: bool,
    /// Whether a thread of the guest waits for memory.
    pub(crate) has_waiters: bool,
    /// The cost of moving a page; `None` where pages can't be moved.
    pub(crate) move_ns: Option<u64>,
    /// Blocks that the host has reclaimed.
    pub(crate) reclaimed: Vec<TestBlock>,
    /// Frames that were freed after DEFLATE.
    pub(crate) deflated: u64,
}

impl TestMemory {
    pub(crate) fn new(total: FrameCount, kernel_floor: FrameCount, clock: Clock) -> Self {
        Self {
            clock,
            free: FrameSet::full(total),
            kernel_floor,
            in_use: Vec::new(),
            can_swap: false,
            is_scattered: false,
            room_ns: 0,
            is_thrashing: false,
            has_waiters: false,
            move_ns: None,
            reclaimed: Vec::new(),
            deflated: 0,
        }
    }

    /// Lets the rest of the guest use up to `frames` frames more.
    pub(crate) fn use_frames(&mut self, frames: u64) {
        let free = &mut self.free;
        self.in_use.extend(core::iter::from_fn(|| free.take(BlockSize::Frame)).take(to_usize(frames)));
    }

    /// Frees up to `frames` frames that the rest of the guest uses.
    pub(crate) fn end_use(&mut self, frames: u64) {
        let kept = self.in_use.len().saturating_sub(to_usize(frames));
        self.in_use.drain(kept..).for_each(|block| self.free.put(&block));
    }

    /// Returns the frames that may be allocated.
    fn available(&self) -> u64 {
        self.free.len().saturating_sub(self.kernel_floor).0
    }

    /// Returns the huge frame that compaction would vacate, behind the number of frames in use
    /// there: the least used one.
    fn victim(&self) -> Option<(u64, u64)> {
        let used = self.free.counts.iter().enumerate().map(|(huge, count)| (HUGE_FRAMES - count, huge as u64));
        let is_movable = |huge: u64, used: u64| {
            let in_it = self.in_use.iter().filter(|block| block.first.0 / HUGE_FRAMES == huge).count();
            in_it as u64 == used
        };
        used.filter(|&(used, huge)| used > 0 && used < HUGE_FRAMES && is_movable(huge, used)).min()
    }
}

impl Memory for TestMemory {
    type Block = TestBlock;

    fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    fn allocate(&mut self, size: BlockSize) -> Option<TestBlock> {
        (self.available() >= size.frames()).then(|| self.free.take(size)).flatten()
    }

    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<TestBlock> {
        (self.available() >= size.frames()).then(|| self.free.take_at(first, size)).flatten()
    }

    fn claim_run(&mut self, frames: Range<FrameNumber>) -> Option<Vec<TestBlock>> {
        let is_free = (frames.start.0..frames.end.0).all(|frame| self.free.contains(frame));
        if !is_free || self.available() < frames.end.0 - frames.start.0 {
            return None;
        }
        let firsts = (frames.start.0..frames.end.0).step_by(to_usize(HUGE_FRAMES)).map(FrameNumber);
        firsts.map(|first| self.free.take_at(first, BlockSize::Huge)).collect()
    }

    fn collect_reclaimed(&mut self) -> Option<TestBlock> {
        self.reclaimed.pop()
    }

    fn free(&mut self, block: TestBlock) {
        self.free.put(&block);
    }

    fn free_unbacked(&mut self, block: TestBlock) {
        self.deflated += block.size.frames();
        self.free.put(&block);
    }

    fn compactable(&mut self, wanted: usize) -> Compactable {
        let partly_free: u64 = self.free.counts.iter().filter(|count| **count < HUGE_FRAMES).sum();
        match self.victim().filter(|_| self.move_ns.is_some() && partly_free >= HUGE_FRAMES && wanted > 0) {
            Some((pages, _)) if self.available() >= HUGE_FRAMES => Compactable { huge_frames: 1, pages },
            _ => Compactable::default(),
        }
    }

    fn compact(&mut self, _wanted: usize) -> usize {
        let (Some((_, victim)), Some(move_ns)) = (self.victim(), self.move_ns) else { return 0 };
        for place in 0..self.in_use.len() {
            if self.in_use[place].first.0 / HUGE_FRAMES == victim {
                let partial = |huge: u64| huge != victim && self.free.counts[to_usize(huge)] < HUGE_FRAMES;
                let all = 0..self.free.members.len() as u64;
                let to = all.into_iter().find(|at| partial(at / HUGE_FRAMES) && self.free.contains(*at)).unwrap();
                let moved = self.free.take_at(FrameNumber(to), BlockSize::Frame).unwrap();
                let old = core::mem::replace(&mut self.in_use[place], moved);
                self.free.put(&old);
                self.clock.spend(move_ns);
            }
        }
        1
    }

    fn make_room(&mut self, _size: BlockSize) -> Room {
        self.clock.spend(self.room_ns);
        if self.is_thrashing {
            return Room::Thrashing;
        }
        if !self.can_swap || self.in_use.is_empty() {
            return Room::Nothing;
        }
        if self.is_scattered {
            self.in_use.sort_by_key(|block| (block.first.0.is_multiple_of(2), block.first.0));
        }
        self.end_use(PAGES_EVICTED_AT_ONCE as u64);
        Room::Made
    }

    fn has_waiters(&mut self) -> bool {
        self.has_waiters
    }
}
