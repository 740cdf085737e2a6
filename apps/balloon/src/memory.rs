//! The driver's memory in an application: pinned blocks. Everything else is up to the kernel, and
//! requested with calls that any application has.

use core::convert::Infallible;
use core::mem;
use core::ops::Range;

use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber};
use aerostat_balloon_driver::{Compactable, Memory, Room};
use aerostat_guest::app::memory::Pinned;
use aerostat_guest::app::{self, Instant, balloon_port};

use crate::needs::NEEDS;

/// Frames that one call evicts.
const RECLAIM_STEP: FrameCount = FrameCount(64);

/// Pinned memory.
#[derive(Debug)]
pub(crate) struct PinnedMemory {
    /// Allocations that had failed at the last [`Memory::has_waiters`].
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

    /// Returns a block of the initial balloon. An application cannot choose other blocks.
    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Pinned> {
        balloon_port::claim_initial(first, size)
    }

    fn claim_run(&mut self, _frames: Range<FrameNumber>) -> Option<Infallible> {
        None
    }

    fn collect_reclaimed(&mut self) -> Option<Pinned> {
        None // an application offers nothing
    }

    fn free(&mut self, block: Pinned) {
        drop(block);
    }

    fn free_unbacked(&mut self, block: Pinned) {
        // SAFETY: the block was ballooned and the monitor has deflated it, so it reads as zero.
        unsafe { block.free_unbacked() };
    }

    fn compactable(&mut self, _wanted: usize) -> Compactable {
        Compactable::default() // only the kernel moves pages
    }

    fn compact(&mut self, _wanted: usize) -> usize {
        0
    }

    fn make_room(&mut self, _size: BlockSize) -> Room {
        if app::memory().is_thrashing {
            return Room::Thrashing;
        }
        if app::reclaim(RECLAIM_STEP) > FrameCount::ZERO { Room::Made } else { Room::Nothing }
    }

    fn has_waiters(&mut self) -> bool {
        let failures = app::memory().allocation_failures;
        let has_failed = mem::replace(&mut self.failures, failures) != failures;
        has_failed || NEEDS.wanted() > FrameCount::ZERO
    }
}
