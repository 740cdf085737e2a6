//! How many free frames there should be while the guest swaps.

use aerostat_abi::units::FrameCount;

use crate::config::KERNEL_FLOOR;

/// Free frames at which the reclaimer begins and ends its work. The last resort below is
/// [`EVICTION_RESERVE`](crate::config::EVICTION_RESERVE): whoever meets that evicts for himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// Below this, frames are made free in the background, and nothing is brought in that nobody
    /// has asked for.
    pub(crate) low: FrameCount,
    /// Up to this.
    pub(crate) high: FrameCount,
}

impl Watermarks {
    /// Without swap nothing is to be had by evicting.
    pub(crate) const NONE: Self = Self { low: FrameCount::ZERO, high: FrameCount::ZERO };

    /// For a guest of `size` frames now: what the balloon leaves and a little, then some 1.5 % of
    /// its size.
    pub(crate) const fn new(size: FrameCount) -> Self {
        let low = KERNEL_FLOOR.0 + size.0 / 256;
        Self { low: FrameCount(low), high: FrameCount(low + size.0 / 64) }
    }
}
