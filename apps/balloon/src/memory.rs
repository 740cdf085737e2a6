//! Memory as an application may have it, for the driver: pinned blocks. Of the rest the kernel
//! decides, asked as any application may ask.

use core::mem;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};
use aerostat_balloon_driver::{Compactable, Memory, Room};
use aerostat_guest::app::memory::Pinned;
use aerostat_guest::app::{self, Instant, balloon_port};

use crate::needs::NEEDS;

/// Frames that are evicted at once when one is missing.
const RECLAIM_STEP: FrameCount = FrameCount(64);

/// Pinned memory.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    /// Allocations that had failed when it was asked last.
    failures: u64,
}

impl PinnedMemory {
    pub(crate) fn new() -> Self {
        Self { failures: app::memory().allocation_failures }
    }
}

impl Memory for PinnedMemory {
    type Block = Pinned;

    fn now_ns(&self) -> u64 {
        Instant::now().as_nanos()
    }

    fn allocate(&mut self, size: BlockSize) -> Option<Pinned> {
        Pinned::allocate(size).ok()
    }

    /// An application can't choose its blocks; only those of the initial balloon are kept for it.
    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Pinned> {
        balloon_port::claim_initial(first, size)
    }

    fn collect_reclaimed(&mut self) -> Option<Pinned> {
        None // it offers nothing
    }

    fn free(&mut self, block: Pinned) {
        drop(block);
    }

    fn free_unbacked(&mut self, block: Pinned) {
        // SAFETY: the monitor had it and has returned it, and reading as zero is what it commit
        // charges then.
        unsafe { block.free_unbacked() };
    }

    fn compactable(&mut self, _wanted: usize) -> Compactable {
        Compactable::default() // where pages lie is the kernel's business
    }

    fn compact(&mut self, _wanted: usize) -> usize {
        0
    }

    fn make_room(&mut self) -> Room {
        if app::memory().is_thrashing {
            return Room::Thrashing;
        }
        if app::reclaim(RECLAIM_STEP) > FrameCount::ZERO { Room::Made } else { Room::Nothing }
    }

    fn is_short(&mut self) -> bool {
        let failures = app::memory().allocation_failures;
        let has_failed = mem::replace(&mut self.failures, failures) != failures;
        has_failed || NEEDS.wanted() > FrameCount::ZERO
    }
}
