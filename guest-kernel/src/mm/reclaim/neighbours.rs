//! Neighbours of a page that comes back: a fault costs several times what decompressing a page does, so pages that went together
//! come back together.
//!
//! That is a guess, so it must cost nobody anything: neighbours get frames only while plenty are available that are neither
//! promised nor kept for the kernel. Frames that eviction has just freed for the page itself are not plenty.

use aerostat_abi::units::FRAME_BYTES;
use aerostat_reclaim_policy::{Arrival, Policy};

use super::{BATCH, Reclaimer, SwapEntry};
use crate::config::{FAULT_AROUND_PAGES, NEIGHBOUR_MARGIN};
use crate::mm::page_table::PageState;
use crate::mm::{BlockSize, FRAMES, Purpose, Space};

/// Evictions between two pages that count as one go: the hand's batch and those beside it.
const TOGETHER: u64 = 4 * BATCH as u64;

impl Reclaimer {
    /// Brings pages around `page` back that were evicted at about the same time as it, of which `entry` tells.
    pub(super) fn restore_neighbours(&mut self, space: &mut Space, page: u64, entry: SwapEntry) {
        let first = page - page % (FAULT_AROUND_PAGES * FRAME_BYTES);
        for neighbour in (0..FAULT_AROUND_PAGES).map(|number| first + number * FRAME_BYTES) {
            let Some(PageState::Swapped(other)) = space.tables().map(|tables| tables.page_state(neighbour)) else {
                continue;
            };
            if entry.distance(other.count).min(other.distance(entry.count)) > TOGETHER {
                continue;
            }
            if FRAMES.lock().statistics().available < NEIGHBOUR_MARGIN {
                return;
            }
            let Some(block) = FRAMES.lock().allocate(BlockSize::Frame, Purpose::Balloon) else { return };
            let standing = self.policy().arrived(Arrival::Prefetch);
            self.bring_back(space, neighbour, other, block, standing);
        }
    }
}
