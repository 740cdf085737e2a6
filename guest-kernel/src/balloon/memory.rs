//! The kernel's memory as the driver sees it: the frame allocator, compaction, reclaim, and threads
//! that wait for memory.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HugeFrameNumber, to_usize};
use aerostat_balloon_driver::{Compactable, Memory, Room};

use super::signals::SIGNALS;
use crate::config::RECLAIM_STEP;
use crate::mm::block::HugeRun;
use crate::mm::shortage::{self, Cause};
use crate::mm::slice::Slice;
use crate::mm::{Block, BlockSize, FRAMES, Purpose, compaction, identity, reclaim, slow_path};
use crate::time::Instant;

/// The kernel's memory.
#[derive(Debug, Default)]
pub(super) struct KernelMemory {
    /// Allocations that had failed at the last [`Memory::has_waiters`].
    failures: u64,
}

impl Memory for KernelMemory {
    type Block = Block;

    fn now_ns(&self) -> u64 {
        Instant::now().as_nanos()
    }

    fn allocate(&mut self, size: BlockSize) -> Option<Block> {
        FRAMES.allocate(size, Purpose::Balloon)
    }

    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Block> {
        FRAMES.claim(first, size, Purpose::Balloon)
    }

    fn claim_run(&mut self, frames: Range<FrameNumber>) -> Option<HugeRun> {
        FRAMES.claim_run(HugeFrameNumber::containing(frames.start)..HugeFrameNumber::containing(frames.end))
    }

    fn collect_reclaimed(&mut self) -> Option<Block> {
        FRAMES.collect_reclaimed()
    }

    fn free(&mut self, block: Block) {
        FRAMES.free_ballooned(block);
    }

    fn free_unbacked(&mut self, block: Block) {
        identity::reach(block.first());
        FRAMES.free_unbacked(block);
    }

    fn compactable(&mut self, wanted: usize) -> Compactable {
        let spare = to_usize(FRAMES.within_reach_of(Purpose::Balloon).0 / HUGE_FRAMES);
        if spare == 0 {
            return Compactable::default();
        }
        let (_, occupancy) = FRAMES.huge_frames();
        let (huge_frames, pages) = occupancy.price(wanted.min(spare));
        Compactable { huge_frames, pages }
    }

    fn compact(&mut self, wanted: usize) -> usize {
        let mut slice = Slice::begin();
        compaction::compact(wanted, || slice.rest_if_over())
    }

    fn make_room(&mut self, size: BlockSize) -> Room {
        shortage::announce(Cause::Balloon);
        if size == BlockSize::Frame && FRAMES.within_reach_of(Purpose::Balloon) > FrameCount::ZERO {
            return Room::Made;
        }
        if reclaim::is_thrashing() {
            return Room::Thrashing;
        }
        let freed = match size {
            BlockSize::Huge => reclaim::reclaim_for_huge_frame(),
            BlockSize::Frame => reclaim::reclaim_in_background(RECLAIM_STEP),
        };
        if freed > FrameCount::ZERO { Room::Made } else { Room::Nothing }
    }

    fn has_waiters(&mut self) -> bool {
        let failures = slow_path::statistics().failures;
        let has_failed = core::mem::replace(&mut self.failures, failures) != failures;
        has_failed || SIGNALS.wanted() > FrameCount::ZERO
    }
}
