//! Carries out what [`super::address_space::resolve`] decides about a page fault.
//!
//! Memory is zeroed outside the locks; if another thread maps the page meanwhile, the block is
//! freed. A fault draws on its region's commit charge. Without swap a free frame backs that charge;
//! with swap a frame may have to be reclaimed first ([`slow_path`]).

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::address_space::{Fault, PageWindow, Resolution, Violation, resolve};
use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::frame_contents::zero;
use super::page_table::{Access, PageState, PageTables, Slot, TableLevel};
use super::reclaim::swap_in::caller::Caller;
use super::reclaim::swap_in::restore::restore;
use super::{FRAMES, OutOfMemory, SPACE, Space, background, file, slow_path};

static HUGE_FAULTS: AtomicU64 = AtomicU64::new(0);
static SMALL_FAULTS: AtomicU64 = AtomicU64::new(0);
static FAULTS: AtomicU64 = AtomicU64::new(0);
static MAJOR_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Why a fault could not be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultError {
    /// The access is not allowed.
    Violation(Violation),
    /// There is no memory for the page: what was committed can't be evicted after all.
    OutOfMemory,
    /// The disk can't read the page.
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
    /// All of them, except those that had to wait for a disk.
    pub minor: u64,
}

/// Faults resolved since boot.
#[must_use]
pub(crate) fn counts() -> FaultCounts {
    let major = MAJOR_FAULTS.load(Ordering::Relaxed);
    FaultCounts {
        huge: HUGE_FAULTS.load(Ordering::Relaxed),
        small: SMALL_FAULTS.load(Ordering::Relaxed),
        major,
        minor: FAULTS.load(Ordering::Relaxed).saturating_sub(major),
    }
}

/// Counts a fault that had to wait for a disk.
pub(super) fn count_major() {
    MAJOR_FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// Returns whether an access faults and the fault can be resolved.
pub(crate) fn is_due(fault: Fault) -> bool {
    !matches!(decide(&SPACE.lock(), fault), Resolution::AlreadyMapped | Resolution::Violation(_))
}

/// Resolves a fault on a page that is not mapped, or not for this kind of access.
///
/// # Errors
/// [`FaultError`].
pub(crate) fn handle(fault: Fault) -> Result<(), FaultError> {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    let huge = || FRAMES.allocate(BlockSize::Huge, Purpose::Committed);
    let decision = {
        let mut space = SPACE.lock();
        if let Some(region) = space.regions.find_mut(fault.address) {
            region.faults += 1;
        }
        decide(&space, fault)
    };
    let at = fault.address - fault.address % FRAME_BYTES;
    match decision {
        Resolution::Violation(violation) => Err(FaultError::Violation(violation)),
        Resolution::Restore { at } => unless_drawn_by_others(restore(at, Caller::Fault)),
        Resolution::ReadFile { at } => file::read(at, Caller::Fault),
        Resolution::AlreadyMapped => Ok(()),
        Resolution::MapHuge { at, .. } if map_huge(at, huge()) => Ok(()),
        Resolution::MapHuge { pages, .. } => {
            unless_drawn_by_others(map_pages(at, pages))?;
            background::wake(); // it may become a huge page once a huge frame is free
            Ok(())
        }
        Resolution::MapPages(pages) => unless_drawn_by_others(map_pages(at, pages)),
    }
}

/// Every page that is not mapped has a frame in the commit charge. When no charge is left, other
/// threads have drawn it and are about to map the page: the access faults again until that is done.
fn unless_drawn_by_others(result: Result<(), FaultError>) -> Result<(), FaultError> {
    match result {
        Err(FaultError::OutOfMemory) if FRAMES.statistics().committed == FrameCount::ZERO => Ok(()),
        result => result,
    }
}

/// Does what a touch of the page would do, if that takes no memory from other uses. Returns whether
/// the page is in memory now.
pub(super) fn prefetch(page: u64) -> bool {
    let huge = || spare_block(BlockSize::Huge, Purpose::Committed);
    let decision = decide(&SPACE.lock(), Fault { address: page, access: Access::ReadOnly });
    match decision {
        Resolution::Violation(_) => false,
        Resolution::Restore { at } => restore(at, Caller::Prefetch).is_ok(),
        Resolution::ReadFile { at } => file::read(at, Caller::Prefetch).is_ok(),
        Resolution::AlreadyMapped => true,
        Resolution::MapHuge { at, .. } if map_huge(at, huge()) => true,
        Resolution::MapHuge { .. } | Resolution::MapPages(_) => map_spare(&mut SPACE.lock(), page),
    }
}

fn decide(space: &Space, fault: Fault) -> Resolution {
    let state = |tables: &PageTables| (tables.slot(fault.address), tables.page_state(fault.address));
    let (slot, page) = space.tables().map_or((Slot::Empty, PageState::Empty), state);
    resolve(space.regions.find(fault.address), fault, slot, page)
}

/// Maps `block`, if there is one, at `at`. Returns whether the slot is mapped now.
fn map_huge(at: u64, block: Option<Block>) -> bool {
    let Some(block) = block else { return false };
    zero(&block);
    let mut space = SPACE.lock();
    if install(&mut space, at, block) {
        HUGE_FAULTS.fetch_add(1, Ordering::Relaxed);
    }
    true
}

/// Maps the page at `at`, and its neighbours for which frames can be spared.
fn map_pages(at: u64, window: PageWindow) -> Result<(), FaultError> {
    let block = slow_path::frame_for_fault(Purpose::Committed)?;
    zero(&block);
    let mut space = SPACE.lock();
    if is_empty(&space, at) {
        install(&mut space, at, block);
    } else {
        FRAMES.free_committed(block); // another thread was faster
    }
    for page in (0..window.pages).map(|page| window.at + page * FRAME_BYTES) {
        if is_empty(&space, page) && !map_spare(&mut space, page) {
            break;
        }
    }
    SMALL_FAULTS.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn is_empty(space: &Space, page: u64) -> bool {
    space.tables().is_some_and(|tables| tables.page_state(page) == PageState::Empty)
}

/// Maps the page, which was never touched, if there is a frame to spare.
fn map_spare(space: &mut Space, page: u64) -> bool {
    let Some(block) = spare_block(BlockSize::Frame, Purpose::Committed) else { return false };
    zero(&block);
    install(space, page, block)
}

/// Allocates a block for a page that was not asked for: only while enough frames are free.
pub(super) fn spare_block(size: BlockSize, purpose: Purpose) -> Option<Block> {
    if FRAMES.can_spare(FrameCount(size.frames())) { FRAMES.allocate(size, purpose) } else { None }
}

/// The tables on the way to a page of a region, and how many were drawn from the region's commit
/// charge.
pub(super) fn table_source(drawn: &mut u64) -> impl FnMut(TableLevel) -> Option<Block> {
    |level| {
        // The page has its frame already: the table must not wait for another.
        let purpose = if level == TableLevel::Pages { Purpose::CommittedReserve } else { Purpose::Kernel };
        let table = FRAMES.allocate_table(purpose);
        *drawn += u64::from(table.is_some() && level == TableLevel::Pages);
        table
    }
}

/// Maps a block that was drawn from a commit charge, or frees it and charges the commit again.
/// Returns whether it is mapped.
fn install(space: &mut Space, at: u64, block: Block) -> bool {
    let frames = block.size().frames();
    let mut tables_drawn = 0;
    // The region may have changed since the block was allocated.
    let region = space.regions.find(at).filter(|region| at + block.size().bytes() <= region.range.end);
    let access = region.map(|region| region.access);
    let result = match (access, space.tables_mut()) {
        (Some(access), Some(tables)) => {
            let mut source = table_source(&mut tables_drawn);
            match block.size() {
                BlockSize::Huge => tables.map_huge(at, block, access, &mut source),
                BlockSize::Frame => tables.map_page(at, block, access, &mut source),
            }
        }
        _ => Err(block),
    };
    let mut drawn = tables_drawn;
    let mapped = result.is_ok();
    match result {
        Ok(()) => drawn += frames,
        Err(block) => FRAMES.free_committed(block),
    }
    space.regions.draw(at, FrameCount(drawn));
    mapped
}
