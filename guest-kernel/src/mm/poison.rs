//! Debug builds detect writes to free memory. A frame that is freed gets a pattern at its beginning
//! and at its end. When it is handed out again, either both are there, or neither is, because the
//! host had the frame or it was never in use.
//!
//! Release builds do none of this.
#![allow(unsafe_code, reason = "writes to memory that has no owner")]

use aerostat_abi::units::{FRAME_BYTES, to_usize};

use super::block::{Block, BlockSize, Contents};

const PATTERN: u64 = 0xdead_f4ee_dead_f4ee;

/// Marks every frame of a block that is being freed.
pub(crate) fn fill(block: &Block) {
    if cfg!(debug_assertions) && block.contents() == Contents::Unknown {
        for frame in 0..block.size().frames() {
            for word in ends(block, frame) {
                // SAFETY: the block is owned, so no other code uses its memory, and the identity
                // map reaches it.
                unsafe { word.write(PATTERN) };
            }
        }
    }
}

/// Checks a block that is being handed out, and returns it.
///
/// # Panics
/// Panics when the block was written to while it was free.
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

/// Returns the first and the last word of one of the block's frames.
fn ends(block: &Block, frame: u64) -> [*mut u64; 2] {
    let start = block.first().address() + frame * FRAME_BYTES;
    [start, start + FRAME_BYTES - 8].map(|address| core::ptr::with_exposed_provenance_mut(to_usize(address)))
}
