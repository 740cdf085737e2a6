//! The identity map beyond the first gibibyte: a page table for each gibibyte in which the guest
//! has memory.
//!
//! A large machine may start with little memory, and a table takes time and memory of the host. So
//! a gibibyte is mapped when the guest first gets frames in it: at the start, or by a DEFLATE. The
//! frames of all tables are reserved at the start ([`super::start`]), so none is ever missing.
#![allow(unsafe_code, reason = "takes frames that were reserved")]

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FrameNumber, HugeFrameNumber};

use super::block::{Block, BlockSize, Contents};
use super::{FRAMES, SPACE};
use crate::layout::{BOOT_IDENTITY_END, DEVICE_HOLE, IDENTITY_END};

/// Gibibytes of the identity map.
const GIBS: usize = (IDENTITY_END / BOOT_IDENTITY_END) as usize;
const FRAMES_IN_GIB: u64 = BOOT_IDENTITY_END / FRAME_BYTES;

/// Which gibibytes are mapped: a bit for each.
static MAPPED: [AtomicU64; GIBS / 64] = [const { AtomicU64::new(0) }; GIBS / 64];

/// The frame reserved for the table of the second gibibyte; those of the others follow.
static TABLES: spin::Once<FrameNumber> = spin::Once::new();

/// Returns how many tables it takes to map all memory below `end`.
pub(super) fn tables(end: FrameNumber) -> u64 {
    end.address().div_ceil(BOOT_IDENTITY_END) - 1
}

/// Sets which frames the tables are made of. The boot code has mapped the first gibibyte, and the
/// device hole as far as it has registers.
///
/// # Safety
/// The caller owns as many frames from `first` on as [`tables`] returns, and gives them up.
pub(super) unsafe fn start(first: FrameNumber) {
    TABLES.call_once(|| first);
    for gib in [0, DEVICE_HOLE.start / BOOT_IDENTITY_END] {
        MAPPED[word(gib)].fetch_or(bit(gib), Ordering::Relaxed);
    }
}

/// Maps the gibibyte of a frame, unless it is mapped. To be called before a frame is freed that the
/// guest did not have before. Must not be called with a spin lock held.
pub(crate) fn reach(frame: FrameNumber) {
    let gib = frame.0 / FRAMES_IN_GIB;
    if MAPPED[word(gib)].load(Ordering::Relaxed) & bit(gib) != 0 {
        return;
    }
    let (Some(first), mut space) = (TABLES.get(), SPACE.lock()) else { return };
    let Some(tables) = space.tables_mut() else { return };
    if MAPPED[word(gib)].load(Ordering::Relaxed) & bit(gib) != 0 {
        return; // another thread was faster
    }
    // SAFETY: the frame is reserved for this table, which is made once.
    let table = unsafe { Block::from_raw(FrameNumber(first.0 + gib - 1), BlockSize::Frame, Contents::Unknown) };
    if let Err(table) = tables.map_identity_gib(gib * BOOT_IDENTITY_END, table, &mut |_| None) {
        unreachable!("the root of the boot tables has no entry for {:?}", table.into_number());
    }
    MAPPED[word(gib)].fetch_or(bit(gib), Ordering::Relaxed);
}

/// Maps all gibibytes with free frames. Called when the initial balloon is known.
pub(crate) fn reach_free_frames() {
    let mut at = HugeFrameNumber(0);
    while let Some(huge) = FRAMES.next_free(at) {
        reach(huge.first());
        let next_gib = (huge.first().0 / FRAMES_IN_GIB + 1) * FRAMES_IN_GIB;
        at = HugeFrameNumber::containing(FrameNumber(next_gib));
    }
}

const fn word(gib: u64) -> usize {
    (gib / 64) as usize
}

const fn bit(gib: u64) -> u64 {
    1 << (gib % 64)
}
