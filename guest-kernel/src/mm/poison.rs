//! Debug builds notice writes to free memory: a frame that is freed gets a pattern at its beginning
//! and at its end, and when it is handed out again both are there, or neither is, as the frame has
//! been with the host or never in use.
//!
//! Release builds do none of this.
#![allow(unsafe_code, reason = "writes to memory that nobody owns")]

use aerostat_abi::units::{FRAME_BYTES, to_usize};

use super::block::{Block, BlockSize, Contents};

const PATTERN: u64 = 0xdead_f4ee_dead_f4ee;

/// Marks every frame of a block that is being freed.
pub(crate) fn fill(block: &Block) {
    if cfg!(debug_assertions) && block.contents() == Contents::Unknown {
        for frame in 0..block.size().frames() {
            for word in ends(block, frame) {
                // SAFETY: the block is owned, so nobody else uses its memory, and the identity map
                // reaches it.
                unsafe { word.write(PATTERN) };
            }
        }
    }
}

/// A block that is being handed out, after a look at it.
///
/// # Panics
/// When somebody has written to it while it was free.
pub(crate) fn checked(block: Block) -> Block {
    if cfg!(debug_assertions) && (block.size(), block.contents()) == (BlockSize::Frame, Contents::Unknown) {
        // SAFETY: as in `fill`.
        let [first, last] = ends(&block, 0).map(|word| unsafe { word.read() } == PATTERN);
        if first != last {
            panic!("{:?} was written to while it was free", block.into_number());
        }
    }
    block
}

/// First and last word of one of the block's frames.
fn ends(block: &Block, frame: u64) -> [*mut u64; 2] {
    let start = block.first().address() + frame * FRAME_BYTES;
    [start, start + FRAME_BYTES - 8].map(|address| core::ptr::with_exposed_provenance_mut(to_usize(address)))
}
