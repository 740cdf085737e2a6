//! Arrays of frame numbers, through which a balloon device learns which frames move.
//!
//! An array has at most 256 numbers, as Linux's has: some devices refuse a longer one. So there are
//! many arrays, which go to the device with one notification.

use aerostat_abi::units::{FRAME_SIZE, FrameNumber};

use super::queue::Buffer;
use super::shared::SharedPages;
use crate::layout::IDENTITY_END;

/// Frame numbers in one array.
const ARRAY_LENGTH: usize = 256;
/// Arrays that there are: as many as a queue has room for.
pub(super) const ARRAYS: usize = 32;
/// Frames that all arrays together can name: 32 MiB.
pub(super) const CAPACITY: usize = ARRAYS * ARRAY_LENGTH;

const _: () = assert!(IDENTITY_END >> 12 <= 1 << 32, "the number of each frame fits an entry");

/// The arrays.
#[derive(Debug)]
pub(super) struct PfnPages {
    words: SharedPages,
    count: usize,
}

impl PfnPages {
    /// Allocates the arrays. Returns `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        let words = SharedPages::new(CAPACITY * size_of::<u32>() / FRAME_SIZE)?;
        Some(Self { words, count: 0 })
    }

    /// Replaces what is in the arrays by as many of the frames as there is room for. Returns
    /// whether there were any. The device must not have any array.
    pub(super) fn fill(&mut self, frames: &mut impl Iterator<Item = FrameNumber>) -> bool {
        self.count = 0;
        for frame in frames.take(CAPACITY) {
            let number = u32::try_from(frame.0).expect("memory ends where the identity map does");
            self.words.write(self.count, number);
            self.count += 1;
        }
        self.count > 0
    }

    /// Returns the arrays that are not empty.
    pub(super) fn buffers(&self) -> impl Iterator<Item = Buffer> {
        (0..self.count)
            .step_by(ARRAY_LENGTH)
            .map(|index| self.words.buffer(index, (self.count - index).min(ARRAY_LENGTH)))
    }
}
