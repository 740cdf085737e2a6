//! Creates, extends, shrinks and ends regions. Their memory is committed here and allocated when it
//! is touched.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};

use super::region_list::InsertError;
use super::release::{Fate, release, shorten};
use super::{CommitCharge, Region, RegionKind, SPACE};
use crate::mm::block::Block;
use crate::mm::frame_allocator::Purpose;
use crate::mm::{FRAMES, OutOfMemory, slow_path};

/// Creates a region of at least `bytes` bytes in `within`. Its memory is committed now, and its
/// frames are allocated when they are touched. Returns the region's first address.
///
/// # Errors
/// [`OutOfMemory`] when the commit charge is refused.
pub(crate) fn map_region(within: Range<u64>, bytes: u64) -> Result<u64, OutOfMemory> {
    map_committed(within, CommitCharge::for_region(bytes)?)
}

/// Creates a region in `within` that takes over a commit charge. Returns its first address.
///
/// # Errors
/// [`OutOfMemory`] when no gap in `within` is large enough.
pub(crate) fn map_committed(within: Range<u64>, commit_charge: CommitCharge) -> Result<u64, OutOfMemory> {
    map_committed_as(RegionKind::Anonymous, within, commit_charge)
}

pub(in crate::mm) fn map_committed_as(
    kind: RegionKind,
    within: Range<u64>,
    commit_charge: CommitCharge,
) -> Result<u64, OutOfMemory> {
    let insert = |spare: &mut Option<Block>| {
        SPACE.lock().regions.insert(kind, within.clone(), commit_charge.bytes(), commit_charge.frames(), spare)
    };
    let start = with_spare_frame(insert)?;
    commit_charge.take_over();
    Ok(start)
}

/// Calls `insert`, and calls it again with a spare frame when the region list needs one. No lock is
/// held while this waits for the frame.
fn with_spare_frame<R>(mut insert: impl FnMut(&mut Option<Block>) -> Result<R, InsertError>) -> Result<R, OutOfMemory> {
    let mut result = insert(&mut None);
    if matches!(result, Err(InsertError::NoFrame)) {
        let mut spare = Some(frame_for_region_list()?);
        result = insert(&mut spare);
        spare.into_iter().for_each(|frame| FRAMES.free(frame));
    }
    result.map_err(|_| OutOfMemory)
}

/// Allocates a frame for the region list. It is charged like memory of the application, so that it
/// does not use up the frames that page tables depend on.
fn frame_for_region_list() -> Result<Block, OutOfMemory> {
    slow_path::charge_commit(FrameCount(1))?;
    slow_path::frame_for_fault(Purpose::CommittedPinned).inspect_err(|_| FRAMES.uncharge_commit(FrameCount(1)))
}

/// Adds a region of the kernel at a fixed place.
///
/// # Errors
/// [`OutOfMemory`] when the place is in use, or there is no memory for the region list.
#[cfg(target_os = "none")]
pub(in crate::mm) fn place_region(kind: RegionKind, range: &Range<u64>) -> Result<(), OutOfMemory> {
    with_spare_frame(|spare| SPACE.lock().regions.place(kind, range.clone(), spare))
}

/// Ends the region that begins at `start`: frees its memory and uncharges its commit.
pub(crate) fn unmap_region(start: u64) {
    let Some(range) = shorten(start, start) else { return };
    release(&range, Fate::Unmapped);
    let Some(region) = SPACE.lock().regions.remove(start, |frame| FRAMES.free(frame)) else { return };
    FRAMES.uncharge_commit(region.commit_charge);
    slow_path::frames_freed(FrameCount::from_bytes_ceil(range.end - range.start));
}

/// Moves the end of the region at `start` up by as much as was charged. The caller has left room
/// behind the region. The old end is a multiple of 2 MiB, so no slot gets a second page table
/// charged.
pub(crate) fn extend_region(start: u64, commit_charge: CommitCharge) {
    let mut space = SPACE.lock();
    if let Some(region) = space.regions.find_mut(start) {
        debug_assert!(region.range.end.is_multiple_of(HUGE_BYTES), "a region that ends within a slot is not extended");
        region.range.end += commit_charge.bytes();
        region.reserved_end = region.range.end;
        region.commit_charge = region.commit_charge.saturating_add(commit_charge.take_over());
    }
}

/// Moves the end of the region at `start` down to `end` and releases what was behind it. The new
/// end is a multiple of 2 MiB, so that no huge page is cut, and a page table is freed with the last
/// of its pages.
pub(crate) fn shrink_region(start: u64, end: u64) {
    debug_assert!(end > start && end.is_multiple_of(HUGE_BYTES), "a region can't end at {end:#x}");
    let Some(range) = shorten(start, end) else { return };
    let cut = Region::commit_charge_for(range.end - start).saturating_sub(Region::commit_charge_for(end - start));
    let surplus = cut.saturating_sub(release(&range, Fate::Unmapped));
    let mut space = SPACE.lock();
    if let Some(region) = space.regions.find_mut(start) {
        region.reserved_end = end;
        region.commit_charge = region.commit_charge.saturating_sub(surplus);
    }
    FRAMES.uncharge_commit(surplus);
    drop(space);
    slow_path::frames_freed(FrameCount::from_bytes_ceil(range.end - range.start));
}
