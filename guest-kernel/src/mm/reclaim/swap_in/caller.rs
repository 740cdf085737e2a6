//! Who asks for an evicted page, and so which frames may be used for it.

use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::pressure::Stall;
use crate::mm::{OutOfMemory, fault, slow_path};

/// Why a page is brought into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread has touched it. Other pages are evicted for it if need be.
    Fault,
    /// A thread is going to touch it. It comes if there is a frame to spare.
    Prefetch,
}

impl Caller {
    /// Allocates a frame for the page.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is none for this caller.
    pub(crate) fn frame(self, purpose: Purpose) -> Result<Block, OutOfMemory> {
        match self {
            Self::Fault => slow_path::frame_for_fault(purpose),
            Self::Prefetch => fault::spare_block(BlockSize::Frame, purpose).ok_or(OutOfMemory),
        }
    }

    /// Counts a wait for a disk, if a thread needs the page to go on.
    pub(crate) fn stall(self) -> Option<Stall> {
        (self == Self::Fault).then(|| {
            fault::count_major();
            Stall::begin()
        })
    }

    /// Returns the page that a thread has touched: `at`, or none.
    pub(crate) fn touched(self, at: u64) -> Option<u64> {
        (self == Self::Fault).then_some(at)
    }
}
