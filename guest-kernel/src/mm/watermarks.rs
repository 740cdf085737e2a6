//! How many free frames there should be while the guest swaps.

use aerostat_abi::units::FrameCount;

use crate::config::KERNEL_FLOOR;

/// Free frames at which background reclaim starts and stops. The last reserve below them is
/// [`EVICTION_RESERVE`](crate::config::EVICTION_RESERVE): a thread that reaches it evicts pages
/// itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// Below this, frames are reclaimed in the background, and no page is brought in that was not
    /// asked for.
    pub(crate) low: FrameCount,
    /// Background reclaim stops at this.
    pub(crate) high: FrameCount,
}

impl Watermarks {
    /// The watermarks without swap, when eviction frees nothing.
    pub(crate) const NONE: Self = Self { low: FrameCount::ZERO, high: FrameCount::ZERO };

    /// Returns the watermarks for a guest that has `size` frames now: what the balloon leaves and a
    /// little more, then some 1.5 % of its size.
    pub(crate) const fn new(size: FrameCount) -> Self {
        let low = KERNEL_FLOOR.0 + size.0 / 256;
        Self { low: FrameCount(low), high: FrameCount(low + size.0 / 64) }
    }
}
