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
    }
}

/// Recounts the kernel's books of frames: for tests and for doubt.
///
/// # Errors
/// The first disagreement, as a sentence.
pub fn validate() -> Result<(), &'static str> {
    mm::validate()
}
