//! Carries out what [`super::address_space::resolve`] decides about a page fault.
//!
//! Memory is zeroed outside the locks; if another thread maps the page meanwhile, the block goes back. A fault draws on its
//! region's promise and so never waits and never fails for want of memory.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::address_space::{PageWindow, Resolution, resolve};
use super::block::{Block, BlockSize, Contents};
use super::frame_allocator::Purpose;
use super::page_table::{PageState, Slot, TableLevel};
use super::{FRAMES, OutOfMemory, SPACE, Space, ladder, reclaim, zero};

static HUGE_FAULTS: AtomicU64 = AtomicU64::new(0);
static SMALL_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Why a fault could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultError {
    /// No region covers the address.
    Violation,
    /// An evicted page can't come back: there is no memory for it, and none to be had.
    OutOfMemory,
}

/// Faults resolved since boot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultCounts {
    /// With a 2 MiB mapping.
    pub huge: u64,
    /// With 4 KiB mappings.
    pub small: u64,
}

/// Faults resolved since boot.
#[must_use]
pub(crate) fn counts() -> FaultCounts {
    FaultCounts { huge: HUGE_FAULTS.load(Ordering::Relaxed), small: SMALL_FAULTS.load(Ordering::Relaxed) }
}

/// Whether a touch of `address` faults, and the fault can be resolved.
pub(crate) fn is_due(address: u64) -> bool {
    let space = SPACE.lock();
    space.regions.find(address).is_some() && space.tables().is_some_and(|tables| !tables.is_mapped(address))
}

/// Resolves a fault on a page that is not mapped.
///
/// # Errors
/// [`FaultError`].
pub(crate) fn handle(address: u64) -> Result<(), FaultError> {
    let decision = {
        let space = SPACE.lock();
        let empty = (Slot::Empty, PageState::Empty);
        let (slot, page) = space.tables().map_or(empty, |tables| (tables.slot(address), tables.page_state(address)));
        resolve(space.regions.find(address), address, slot, page)
    };
    match decision {
        Resolution::Violation => Err(FaultError::Violation),
        Resolution::Restore { at } => restore(at),
        Resolution::AlreadyMapped => Ok(()),
        Resolution::MapHuge { at, pages } => {
            if !map_huge(at) {
                map_pages(pages);
            }
            Ok(())
        }
        Resolution::MapPages(pages) => {
            map_pages(pages);
            Ok(())
        }
    }
}

/// Brings an evicted page back. Others are evicted for it if need be; the last resort is the host.
fn restore(at: u64) -> Result<(), FaultError> {
    let block = ladder::frame_for_restore().map_err(|OutOfMemory| FaultError::OutOfMemory)?;
    if let Err(block) = reclaim::restore(at, block) {
        FRAMES.lock().free(block); // another thread was faster
    }
    Ok(())
}

/// Whether the slot at `at` is mapped now; `false` when no huge frame is free.
fn map_huge(at: u64) -> bool {
    let Some(block) = FRAMES.lock().allocate(BlockSize::Huge, Purpose::Promised) else { return false };
    zero(&block);
    let mut space = SPACE.lock();
    if install(&mut space, at, block) {
        HUGE_FAULTS.fetch_add(1, Ordering::Relaxed);
    }
    true
}

fn map_pages(window: PageWindow) {
    let mut space = SPACE.lock();
    for page in (0..window.pages).map(|page| window.at + page * FRAME_BYTES) {
        if space.tables().is_some_and(|tables| tables.page_state(page) != PageState::Empty) {
            continue;
        }
        let Some(block) = FRAMES.lock().allocate(BlockSize::Frame, Purpose::Promised) else { return };
        zero(&block);
        let _ = install(&mut space, page, block);
    }
    SMALL_FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// Maps a block that was drawn from a promise, or gives it and its promise back; says whether it is mapped.
fn install(space: &mut Space, at: u64, block: Block) -> bool {
    let frames = block.size().frames();
    let mut tables_drawn = 0;
    let result = match (space.regions.find(at).is_some(), space.tables_mut()) {
        (true, Some(tables)) => {
            let mut source = |level| {
                let purpose = if level == TableLevel::Pages { Purpose::Promised } else { Purpose::Kernel };
                let table = FRAMES.lock().allocate_table(purpose);
                tables_drawn += u64::from(table.is_some() && level == TableLevel::Pages);
                table
            };
            match block.size() {
                BlockSize::Huge => tables.map_huge(at, block, &mut source),
                BlockSize::Frame => tables.map_page(at, block, &mut source),
            }
        }
        _ => Err(block),
    };
    let mut drawn = tables_drawn;
    let mapped = result.is_ok();
    match result {
        Ok(()) => drawn += frames,
        Err(block) => FRAMES.lock().free_promised(block),
    }
    if let Some(region) = space.regions.find_mut(at) {
        debug_assert!(region.promise.0 >= drawn, "a region drew more than it was promised");
        region.promise = region.promise.saturating_sub(FrameCount(drawn));
    }
    mapped
}

/// Whether a block has to be written before an application may see it.
pub(super) fn needs_zeroing(block: &Block) -> bool {
    block.contents() == Contents::Unknown
}
