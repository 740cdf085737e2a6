//! Writes the contents of frames, through the identity map.
#![allow(unsafe_code, reason = "reaches frames by their addresses")]

use aerostat_abi::units::{FRAME_BYTES, FrameNumber, to_usize};

use super::block::{Block, Contents};

/// Zeroes a block's memory, unless it is known to be zero.
pub(super) fn zero(block: &Block) {
    if block.contents() == Contents::Unknown {
        let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(block.first().address()));
        // SAFETY: the block is owned, so no other code uses its memory, and the identity map
        // reaches it at its own address.
        unsafe { core::ptr::write_bytes(pointer, 0, to_usize(block.size().bytes())) };
    }
}

/// Copies a frame to the given frame of a block. No thread can write to the source: its translation
/// has been revoked and flushed.
pub(super) fn copy_page(from: FrameNumber, to: &Block, frame: u64) {
    debug_assert!(frame < to.size().frames());
    let source = core::ptr::with_exposed_provenance::<u8>(to_usize(from.address()));
    let target = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(to.first().address() + frame * FRAME_BYTES));
    // SAFETY: the identity map reaches both; the block is owned, so no other code uses it, and it
    // differs from the source frame, which belongs to a page.
    unsafe { core::ptr::copy_nonoverlapping(source, target, to_usize(FRAME_BYTES)) };
}
