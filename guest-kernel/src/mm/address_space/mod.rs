//! The one address space: its regions and its page tables.
//!
//! * [`region`]: what a region is; [`regions`]: all of them, in a [`region_list`]; [`mod@resolve`]:
//!   the decision behind a page fault.
//! * [`map`]: creates, extends and shrinks regions; [`commit_charge`]: what they cost;
//!   [`mod@release`]: unmaps ranges and frees what was there.
//! * [`mod@pieces`]: ranges of addresses, cut into slots.
//!
//! [`map_region`] creates a region and [`unmap_region`] ends it. In between, page faults draw its
//! frames from its commit charge, one at a time.

mod commit_charge;
mod map;
mod pieces;
mod region;
mod region_list;
mod regions;
mod release;
mod resolve;

use aerostat_abi::units::FrameCount;

pub(crate) use commit_charge::CommitCharge;
pub(super) use map::map_committed_as;
#[cfg(target_os = "none")]
pub(super) use map::place_region;
#[cfg_attr(not(target_os = "none"), allow(unused_imports, reason = "the users are compiled for the guest only"))]
pub(crate) use map::{extend_region, map_committed, map_region, shrink_region, unmap_region};
pub(super) use pieces::{pieces, slots};
pub(crate) use region::{Region, RegionKind};
#[cfg(test)]
pub(super) use release::shorten;
pub(super) use release::{Fate, RELEASE_SLOTS, release};
pub(crate) use resolve::{Fault, PageWindow, Resolution, Violation, resolve};

use self::regions::Regions;
use super::FRAMES;
use super::compaction::collapse::Collapser;
use super::frame_allocator::Purpose;
use super::page_table::{PageTables, Slot};
use crate::arch::x86_64::cpu;
use crate::sync::{LockRank, SpinLock};

/// The one address space.
pub(crate) static SPACE: SpinLock<Space> =
    SpinLock::new(LockRank::AddressSpace, Space { regions: Regions::new(), tables: None, collapser: Collapser::new() });

/// Regions and page tables, and the slot that is being collapsed.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) regions: Regions,
    pub(super) tables: Option<PageTables>,
    pub(super) collapser: Collapser,
}

impl Space {
    pub(crate) fn tables(&self) -> Option<&PageTables> {
        self.tables.as_ref()
    }

    pub(crate) fn tables_mut(&mut self) -> Option<&mut PageTables> {
        self.tables.as_mut()
    }

    /// Splits the huge page at `at` into a table of pages. Returns `false` when there is no huge
    /// page at `at`, or no frame for the table.
    pub(crate) fn split_huge(&mut self, at: u64) -> bool {
        let Some(tables) = self.tables.as_mut() else { return false };
        if tables.slot(at) != Slot::Huge {
            return false;
        }
        // A region's commit charge includes a table for each of its slots.
        let Some(table) = FRAMES.allocate_table(Purpose::CommittedReserve) else { return false };
        if let Err(table) = tables.split(at, table) {
            FRAMES.free_committed_table(table);
            return false;
        }
        self.regions.draw(at, FrameCount(1));
        cpu::flush_tlb();
        true
    }
}

#[cfg(test)]
mod tests;
