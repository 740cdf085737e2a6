//! A region: which part of the address space an application may touch, and what its pages contain.
//!
//! A *region* is a range of pages whose memory was committed when the region was created. Regions
//! begin at multiples of 2 MiB, so that each slot of the page tables belongs to at most one region;
//! the space between two regions is never mapped.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};

use crate::mm::page_table::Access;
use crate::mm::reclaim::scan::balance::PageKind;

/// What a region's pages contain, and so what a fault in the region means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionKind {
    /// Memory that begins as zero, is allocated at the first touch and can be evicted.
    Anonymous,
    /// The contents of a disk, for reading.
    File,
    /// The places of all threads' stacks. Stacks in use are mapped as a whole; the rest is guard.
    Stack,
    /// Memory of the kernel that was mapped as a whole when the region was created.
    Pinned,
}

/// A range of pages of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) kind: RegionKind,
    /// How an application may access it.
    pub(crate) access: Access,
    /// The first byte and the byte behind the last; whole pages.
    pub(crate) range: Range<u64>,
    /// The address from which the distance to the next region is measured. It lies behind `range`
    /// while pages that were released are still being unmapped.
    pub(crate) reserved_end: u64,
    /// Frames of the region's commit charge that no page uses: the page was never touched, or is
    /// evicted.
    pub(crate) commit_charge: FrameCount,
    /// Page faults in the region, and pages of it that were restored after an eviction.
    pub(crate) faults: u64,
    pub(crate) restores: u64,
}

impl Region {
    pub(super) fn new(kind: RegionKind, range: Range<u64>, commit_charge: FrameCount) -> Self {
        let access = match kind {
            RegionKind::File => Access::ReadOnly,
            RegionKind::Anonymous | RegionKind::Stack | RegionKind::Pinned => Access::ReadWrite,
        };
        let reserved_end = range.end;
        Self { kind, access, range, reserved_end, commit_charge, faults: 0, restores: 0 }
    }

    /// Returns how reclaim treats the region's pages; `None` where they always stay.
    pub(super) fn page_kind(&self) -> Option<PageKind> {
        match self.kind {
            RegionKind::Anonymous => Some(PageKind::Anonymous),
            RegionKind::File => Some(PageKind::File),
            RegionKind::Stack | RegionKind::Pinned => None,
        }
    }

    /// Returns the most frames that a region of `bytes` needs: its pages, and a page table for each
    /// slot that it touches.
    pub(crate) fn commit_charge_for(bytes: u64) -> FrameCount {
        FrameCount::from_bytes_ceil(bytes).saturating_add(FrameCount(bytes.div_ceil(HUGE_BYTES)))
    }
}
