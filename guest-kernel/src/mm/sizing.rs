//! All values that follow from how much memory the guest has now: a large machine with a large
//! balloon behaves like a small one.
//!
//! Pure. [`Frames`](super::frames) recomputes the values whenever the balloon changes, and no other
//! code derives anything from a size.

use aerostat_abi::units::FrameCount;

use super::watermarks::Watermarks;
use crate::config::COMPRESSED_POOL_SHARE;

/// What depends on the guest's current size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizing {
    pub(crate) watermarks: Watermarks,
    /// Frames that the compressed pool may have before its oldest zspages go to disk, if there is a
    /// swap disk.
    pub(crate) compressed_pool_bound: FrameCount,
}

impl Sizing {
    /// Returns the values for a guest that has nothing to reclaim.
    pub(crate) const NONE: Self = Self { watermarks: Watermarks::NONE, compressed_pool_bound: FrameCount::ZERO };

    /// Returns the values for a guest that can reclaim and has `size` frames: its machine's memory
    /// less its balloon.
    pub(crate) const fn of(size: FrameCount) -> Self {
        Self { watermarks: Watermarks::new(size), compressed_pool_bound: FrameCount(size.0 / COMPRESSED_POOL_SHARE) }
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameCount, Sizing};

    #[test]
    fn everything_grows_with_the_size_and_leaves_most_of_it_to_the_application() {
        for mib in [16, 24, 64, 328, 16 << 10, 511 << 10] {
            let (size, larger) = (FrameCount::from_mib(mib), FrameCount::from_mib(2 * mib));
            let (sizing, next) = (Sizing::of(size), Sizing::of(larger));
            assert!(sizing.watermarks.low < sizing.watermarks.high && sizing.watermarks.high.0 * 4 < size.0);
            assert!(
                sizing.watermarks.high < next.watermarks.high
                    && sizing.compressed_pool_bound < next.compressed_pool_bound
            );
            assert!(sizing.compressed_pool_bound.0 * 2 < size.0);
        }
    }
}
