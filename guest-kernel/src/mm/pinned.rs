//! Kernel memory that is mapped as a whole when it is allocated and never freed: stacks, and
//! metadata too large for the heap.
#![allow(unsafe_code, reason = "makes slices out of freshly mapped memory")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, to_usize};

use super::address_space::{self, RegionKind};
use super::bump::BumpAllocator;
use super::frame_contents::zero;
use super::page_table::Access;
use super::{FRAMES, OutOfMemory, Purpose, SPACE, slow_path};
use crate::layout::METADATA;

/// What is in memory when it is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Zeros,
    /// Anything. Memory that is not written costs the host nothing.
    Leftovers,
}

/// Maps the pages of a stack, as far as they are not mapped yet. They may hold anything. The frames
/// are drawn from `commit_charge`; the caller keeps the rest of it.
///
/// # Errors
/// [`OutOfMemory`]; the pages that were mapped until then stay mapped, for the next attempt.
pub(crate) fn map_stack(range: Range<u64>, commit_charge: &mut FrameCount) -> Result<(), OutOfMemory> {
    map(range, commit_charge, Fill::Leftovers)
}

fn map(range: Range<u64>, commit_charge: &mut FrameCount, fill: Fill) -> Result<(), OutOfMemory> {
    for page in range.step_by(to_usize(FRAME_BYTES)) {
        if SPACE.lock().tables().is_some_and(|tables| tables.is_mapped(page)) {
            continue;
        }
        let block = slow_path::frame_for_fault(Purpose::CommittedPinned)?;
        *commit_charge = commit_charge.saturating_sub(FrameCount(1));
        if fill == Fill::Zeros {
            zero(&block);
        }
        let mut table = |_| FRAMES.allocate_table(Purpose::Kernel);
        let mut space = SPACE.lock();
        let result = space.tables_mut().map(|tables| tables.map_page(page, block, Access::ReadWrite, &mut table));
        if let Some(Err(block)) = result {
            FRAMES.free(block);
            return Err(OutOfMemory);
        }
    }
    Ok(())
}

/// Allocates `words` zeroed words for metadata whose size is known only after the boot. Called
/// once.
///
/// # Errors
/// [`OutOfMemory`].
pub(crate) fn metadata(words: usize) -> Result<BumpAllocator, OutOfMemory> {
    let bytes = (words as u64 * 8).next_multiple_of(FRAME_BYTES);
    let mut commit_charge = FrameCount::from_bytes_ceil(bytes);
    slow_path::charge_commit(commit_charge)?;
    let mapped = map(METADATA..METADATA + bytes, &mut commit_charge, Fill::Zeros);
    FRAMES.uncharge_commit(commit_charge);
    mapped?;
    address_space::place_region(RegionKind::Pinned, &(METADATA..METADATA + bytes))?;
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(to_usize(METADATA));
    // SAFETY: just mapped and zeroed, for this one caller, and never unmapped.
    Ok(BumpAllocator::new(unsafe { core::slice::from_raw_parts_mut(pointer, words) }))
}
