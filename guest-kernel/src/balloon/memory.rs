//! The kernel's memory as the driver sees it: the frame allocator, compaction, reclaim, and who
//! waits.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_balloon_driver::{Compactable, Memory, Room};

use crate::config::RECLAIM_STEP;
use crate::mm::shortage::{self, Cause};
use crate::mm::slice::Slice;
use crate::mm::{Block, BlockSize, FRAMES, Purpose, compaction, reclaim, slow_path};
use crate::time::Instant;

/// Frames that somebody waits for.
pub(super) static WANTED: AtomicU64 = AtomicU64::new(0);

/// The kernel's memory.
#[derive(Debug, Default)]
pub(super) struct KernelMemory {
    /// Allocations that had failed when it was asked last.
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

    fn collect_reclaimed(&mut self) -> Option<Block> {
        FRAMES.collect_reclaimed()
    }

    fn free(&mut self, block: Block) {
        FRAMES.free_ballooned(block);
    }

    fn free_unbacked(&mut self, block: Block) {
        FRAMES.free_unbacked(block);
    }

    fn compactable(&mut self, wanted: usize) -> Compactable {
        let open = to_usize(FRAMES.within_reach_of(Purpose::Balloon).0 / HUGE_FRAMES);
        if open == 0 {
            return Compactable::default();
        }
        let (_, occupancy) = FRAMES.huge_frames();
        let (huge_frames, pages) = occupancy.price(wanted.min(open));
        Compactable { huge_frames, pages }
    }

    fn compact(&mut self, wanted: usize) -> usize {
        let mut slice = Slice::begin();
        compaction::compact(wanted, || slice.rest_if_over())
    }

    fn make_room(&mut self) -> Room {
        // A driver that asks for a frame pushes the guest to reclaim, like anybody who asks for
        // memory.
        shortage::announce(Cause::Balloon);
        if FRAMES.within_reach_of(Purpose::Balloon) > FrameCount::ZERO {
            return Room::Made;
        }
        if reclaim::is_thrashing() {
            return Room::Thrashing;
        }
        if reclaim::reclaim_ahead(RECLAIM_STEP) > FrameCount::ZERO { Room::Made } else { Room::Nothing }
    }

    fn is_short(&mut self) -> bool {
        let failures = slow_path::statistics().failures;
        let has_failed = core::mem::replace(&mut self.failures, failures) != failures;
        has_failed || WANTED.load(Ordering::Relaxed) > 0
    }
}
