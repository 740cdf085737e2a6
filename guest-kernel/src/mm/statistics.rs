//! What memory management reports about itself, and the check of its accounts.

use aerostat_abi::units::FrameCount;

use super::fault::FaultCounts;
use super::frame_allocator::FrameStatistics;
use super::{FRAMES, compaction, extent, fault, pressure, reclaim, slow_path};

/// What the kernel knows about its memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MemoryStatistics {
    /// Frames of the machine, ballooned ones included.
    pub total: FrameCount,
    /// The frame allocator's metrics.
    pub frames: FrameStatistics,
    /// Page faults resolved.
    pub faults: FaultCounts,
    /// Allocations and page faults that took the slow path, and those that failed there.
    pub slow_path: slow_path::SlowPathStatistics,
    /// Free memory in whole huge frames that the host backs.
    pub backed_free: FrameCount,
    /// What reclaim has done and holds.
    pub reclaim: reclaim::ReclaimStatistics,
    /// How long threads had to wait for memory.
    pub pressure: pressure::PressureStatistics,
    /// Pages moved by compaction.
    pub moved_pages: u64,
}

/// Returns the current metrics.
#[must_use]
pub(crate) fn statistics() -> MemoryStatistics {
    MemoryStatistics {
        total: extent::total_frames(),
        frames: FRAMES.statistics(),
        faults: fault::counts(),
        slow_path: slow_path::statistics(),
        backed_free: FRAMES.backed_free(),
        reclaim: reclaim::statistics(),
        pressure: pressure::statistics(),
        moved_pages: compaction::moved_pages(),
    }
}

/// Recounts the accounts of the frame allocator and of the compressed pool.
///
/// # Errors
/// Returns the first disagreement, as a sentence.
pub(crate) fn validate() -> Result<(), &'static str> {
    FRAMES.validate().and_then(|()| reclaim::validate())
}
