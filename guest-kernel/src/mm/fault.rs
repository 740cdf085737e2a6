//! Carries out what [`super::address_space::resolve`] decides about a page fault.
//!
//! Memory is zeroed outside the locks; if another thread maps the page meanwhile, the block goes back. A fault draws on its
//! region's promise: without swap there is a free frame behind it, with swap one may have to be made free first ([`ladder`]).

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::address_space::{PageWindow, Resolution, resolve};
use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::page_table::{PageState, Slot, TableLevel};
use super::reclaim::restore::restore;
use super::{FRAMES, OutOfMemory, SPACE, Space, file, ladder, reclaim, zero};

static HUGE_FAULTS: AtomicU64 = AtomicU64::new(0);
static SMALL_FAULTS: AtomicU64 = AtomicU64::new(0);
static MAJOR_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Why a fault could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultError {
    /// No region covers the address.
    Violation,
    /// There is no memory for the page, and none to be had: what was promised can't be put elsewhere after all.
    OutOfMemory,
    /// The page is on a disk, which can't read it.
    Disk,
}

impl From<OutOfMemory> for FaultError {
    fn from(OutOfMemory: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Faults resolved since boot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultCounts {
    /// With a 2 MiB mapping.
    pub huge: u64,
    /// With 4 KiB mappings.
    pub small: u64,
    /// By reading from a disk.
    pub major: u64,
}

/// Faults resolved since boot.
#[must_use]
pub(crate) fn counts() -> FaultCounts {
    FaultCounts {
        huge: HUGE_FAULTS.load(Ordering::Relaxed),
        small: SMALL_FAULTS.load(Ordering::Relaxed),
        major: MAJOR_FAULTS.load(Ordering::Relaxed),
    }
}

/// Counts a fault that had to wait for a disk.
pub(super) fn count_major() {
    MAJOR_FAULTS.fetch_add(1, Ordering::Relaxed);
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
    let page = address - address % FRAME_BYTES;
    let decision = {
        let space = SPACE.lock();
        let empty = (Slot::Empty, PageState::Empty);
        let (slot, page) = space.tables().map_or(empty, |tables| (tables.slot(address), tables.page_state(address)));
        resolve(space.regions.find(address), address, slot, page)
    };
    match decision {
        Resolution::Violation => Err(FaultError::Violation),
        Resolution::Restore { at } => restore(at),
        Resolution::ReadFile { at } => file::read(at),
        Resolution::AlreadyMapped => Ok(()),
        Resolution::MapHuge { at, .. } if map_huge(at) => Ok(()),
        Resolution::MapHuge { pages, .. } => {
            map_pages(page, pages)?;
            reclaim::wake(); // it may become a huge page, once there is a frame for it
            Ok(())
        }
        Resolution::MapPages(pages) => Ok(map_pages(page, pages)?),
    }
}

/// Whether the slot at `at` is mapped now; `false` when no huge frame is free.
fn map_huge(at: u64) -> bool {
    let Some(block) = FRAMES.allocate(BlockSize::Huge, Purpose::Promised) else { return false };
    zero(&block);
    let mut space = SPACE.lock();
    if install(&mut space, at, block) {
        HUGE_FAULTS.fetch_add(1, Ordering::Relaxed);
    }
    true
}

/// Maps the page at `at`, and those around it for which frames are at hand.
fn map_pages(at: u64, window: PageWindow) -> Result<(), OutOfMemory> {
    let block = ladder::frame_for_fault(Purpose::Promised)?;
    zero(&block);
    let mut space = SPACE.lock();
    if is_empty(&space, at) {
        install(&mut space, at, block);
    } else {
        FRAMES.free_promised(block); // another thread was faster
    }
    for page in (0..window.pages).map(|page| window.at + page * FRAME_BYTES) {
        if !is_empty(&space, page) {
            continue;
        }
        let Some(block) = spare_frame(Purpose::Promised) else { break };
        zero(&block);
        install(&mut space, page, block);
    }
    SMALL_FAULTS.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn is_empty(space: &Space, page: u64) -> bool {
    space.tables().is_some_and(|tables| tables.page_state(page) == PageState::Empty)
}

/// A frame for something that nobody has asked for yet: only while there are enough.
pub(super) fn spare_frame(purpose: Purpose) -> Option<Block> {
    if FRAMES.is_short() { None } else { FRAMES.allocate(BlockSize::Frame, purpose) }
}

/// Maps a block that was drawn from a promise, or gives it and its promise back; says whether it is mapped.
fn install(space: &mut Space, at: u64, block: Block) -> bool {
    let frames = block.size().frames();
    let mut tables_drawn = 0;
    let result = match (space.regions.find(at).is_some(), space.tables_mut()) {
        (true, Some(tables)) => {
            let mut source = |level| {
                // The page has its frame: the table must not wait for another.
                let purpose = if level == TableLevel::Pages { Purpose::PromisedReserve } else { Purpose::Kernel };
                let table = FRAMES.allocate_table(purpose);
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
        Err(block) => FRAMES.free_promised(block),
    }
    space.regions.draw(at, FrameCount(drawn));
    mapped
}
