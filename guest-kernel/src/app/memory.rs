//! What an application can know about the guest's memory.

use aerostat_abi::units::FrameCount;

use crate::{balloon, mm};

/// Memory of the guest, now; counts of events run from boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryInfo {
    /// The machine's memory, ballooned frames included.
    pub total: FrameCount,
    /// Guest size: total less balloon.
    pub size: FrameCount,
    /// Frames that nobody uses.
    pub free: FrameCount,
    /// Of those, frames that can still be allocated.
    pub available: FrameCount,
    /// Page faults resolved with a 2 MiB mapping.
    pub huge_faults: u64,
    /// Page faults resolved with 4 KiB mappings.
    pub small_faults: u64,
    /// Allocations that failed.
    pub allocation_failures: u64,
    /// Pages whose contents are in the compressed tier, and the frames that they occupy there.
    pub compressed_pages: u64,
    /// Frames of the compressed tier.
    pub compressed_frames: FrameCount,
    /// Pages that are one word over and over, and occupy nothing.
    pub filled_pages: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Evicted pages brought back.
    pub restores: u64,
    /// Of those, pages that had been evicted shortly before.
    pub refaults: u64,
}

/// The figures now.
#[must_use]
pub fn memory() -> MemoryInfo {
    let memory = mm::statistics();
    MemoryInfo {
        total: memory.total,
        size: memory.total.saturating_sub(balloon::size()),
        free: memory.frames.free,
        available: memory.frames.available,
        huge_faults: memory.faults.huge,
        small_faults: memory.faults.small,
        allocation_failures: memory.allocation_failures,
        compressed_pages: memory.reclaim.tier.pages,
        compressed_frames: memory.reclaim.tier.frames,
        filled_pages: memory.reclaim.filled_pages,
        evictions: memory.reclaim.evictions,
        restores: memory.reclaim.restores,
        refaults: memory.reclaim.refaults,
    }
}

/// Evicts pages that the application can do without until `wanted` frames more are free, or nothing that could go is left; returns
/// how many became free: none where reclaim is off. For a service that knows that it will be idle, or that it is about to need memory
/// quickly (Linux has the same as `memory.reclaim` of a control group).
pub fn reclaim(wanted: FrameCount) -> FrameCount {
    mm::reclaim::reclaim(wanted)
}

/// Recounts the kernel's books of frames: for tests and for doubt.
///
/// # Errors
/// The first disagreement, as a sentence.
pub fn validate() -> Result<(), &'static str> {
    mm::validate()
}
