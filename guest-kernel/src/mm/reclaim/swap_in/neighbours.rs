//! Neighbours of a page that comes back: a fault costs several times what decompressing a page
//! does, so pages that went together come back together.
//!
//! That is a guess, so it must cost nobody anything: neighbours get frames only while plenty are
//! free.

use aerostat_abi::units::FRAME_BYTES;

use crate::config::FAULT_AROUND_PAGES;
use crate::mm::page_table::PageState;
use crate::mm::reclaim::Reclaimer;
use crate::mm::reclaim::scan::hand::BATCH;
use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
use crate::mm::{BlockSize, FRAMES, Purpose, Space, fault};

/// Evictions between two pages that count as one go: the hand's batch and those beside it.
const TOGETHER: u64 = 4 * BATCH as u64;

impl Reclaimer {
    /// Brings pages around `page` back that were evicted at about the same time as it, of which
    /// `entry` tells.
    pub(crate) fn restore_neighbours(&mut self, space: &mut Space, page: u64, entry: SwapEntry) {
        let first = page - page % (FAULT_AROUND_PAGES * FRAME_BYTES);
        for neighbour in (0..FAULT_AROUND_PAGES).map(|number| first + number * FRAME_BYTES) {
            let Some(PageState::Swapped(other)) = space.tables().map(|tables| tables.page_state(neighbour)) else {
                continue;
            };
            if !matches!(other.stored, Stored::Filled(_) | Stored::Compressed(_)) {
                continue;
            }
            if entry.distance(other.count).min(other.distance(entry.count)) > TOGETHER {
                continue;
            }
            let Some(block) = fault::spare_block(BlockSize::Frame, Purpose::Committed) else { return };
            if let Err(left) = self.unpack_into(space, neighbour, other, block, false) {
                FRAMES.free_committed(left.block);
            }
        }
    }
}
