//! How much memory the machine has, and where it ends.

use aerostat_abi::units::{FrameCount, FrameNumber};

static EXTENT: spin::Once<Extent> = spin::Once::new();

/// How much memory there is, and where it ends.
#[derive(Debug)]
pub(super) struct Extent {
    /// Frames that the machine has.
    pub(super) total: FrameCount,
    /// The frame behind the last one.
    pub(super) end: FrameNumber,
}

/// Returns the number of frames of the machine; zero until memory has been set up.
pub(crate) fn total_frames() -> FrameCount {
    EXTENT.get().map_or(FrameCount::ZERO, |extent| extent.total)
}

/// Returns the frame behind the last one; zero until memory has been set up.
pub(crate) fn memory_end() -> FrameNumber {
    EXTENT.get().map_or(FrameNumber(0), |extent| extent.end)
}

/// Sets the extent.
#[cfg(target_os = "none")]
pub(super) fn set(extent: Extent) {
    EXTENT.call_once(|| extent);
}
