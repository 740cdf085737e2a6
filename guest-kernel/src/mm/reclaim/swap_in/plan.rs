//! What is read from the swap disk at once: slots in a row that hold the same kind of thing, pages
//! or zspages, and what they held when that was decided.

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE};

use super::window::{GAP_BYTES, Window};
use crate::config::MAX_READ_AHEAD;
use crate::mm::Space;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::PageState;
use crate::mm::reclaim::swap::disk::Disk;
use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
use crate::mm::reclaim::swap::slot_map::{SlotContents, SlotNumber, SlotVersion};
use crate::mm::reclaim::swap::swap_disk::SwapDisk;

/// Slots to be read.
pub(super) struct ReadPlan {
    pub(super) disk: &'static dyn Disk,
    /// What the frames are for: committed to pages, or the compressed pool's.
    pub(super) purpose: Purpose,
    pub(super) first: SlotNumber,
    /// The page in the first slot, and the distance from it of the page in each slot, in pages.
    /// Zspages name their pages themselves.
    start: u64,
    distances: [u16; MAX_READ_AHEAD],
    /// The version of each slot; `None` for a slot that belongs to the zspage before it.
    versions: [Option<SlotVersion>; MAX_READ_AHEAD],
    pub(super) count: usize,
    /// Slots of the page or zspage that is wanted.
    pub(super) least: usize,
    /// The window of the read, from which follows that of the next one.
    window: Window,
}

const _: () = assert!(MAX_READ_AHEAD as u64 * (GAP_BYTES / FRAME_BYTES + 1) <= u16::MAX as u64);

impl ReadPlan {
    /// Plans to read pages from `at` on. They are found by their addresses, so they follow each
    /// other in memory as they do on disk. Pages in between may be stored elsewhere, as not all are
    /// evicted at once.
    pub(super) fn for_pages(swap: &SwapDisk, space: &Space, at: u64, window: Window) -> Option<Self> {
        let mut plan = Self::new(swap, Purpose::Committed, slot_of(space, at)?, at, window);
        let mut next = at;
        while plan.count < window.slots() {
            let slot = plan.first.plus(plan.count);
            let Some((SlotContents::Page, version)) = swap.slots.contents(slot) else { break };
            let mut pages = (next..=next + GAP_BYTES).step_by(FRAME_SIZE);
            let Some(page) = pages.find(|page| slot_of(space, *page) == Some(slot)) else { break };
            plan.push(page, version, 1);
            next = page + FRAME_BYTES;
        }
        (plan.count > 0).then_some(plan)
    }

    /// Plans to read zspages from `first` on.
    pub(super) fn for_zspages(swap: &SwapDisk, first: SlotNumber, window: Window) -> Option<Self> {
        let mut plan = Self::new(swap, Purpose::CompressedPool, first, 0, window);
        while plan.count < window.slots()
            && let Some((SlotContents::Zspage { slots, .. }, version)) = swap.slots.contents(first.plus(plan.count))
            && plan.count + slots <= MAX_READ_AHEAD
        {
            plan.push(0, version, slots);
        }
        (plan.count > 0).then_some(plan)
    }

    /// Plans what follows, except for slots for which `is_planned` is true.
    pub(super) fn next(&self, swap: &SwapDisk, space: &Space, is_planned: impl Fn(SlotNumber) -> bool) -> Option<Self> {
        let window = self.window.next();
        if self.purpose == Purpose::CompressedPool {
            let next = self.first.plus(self.count);
            return if is_planned(next) { None } else { Self::for_zspages(swap, next, window) };
        }
        let mut pages = (self.end()..=self.end() + GAP_BYTES).step_by(FRAME_SIZE);
        let next = pages.find(|page| slot_of(space, *page).is_some_and(|slot| !is_planned(slot)))?;
        Self::for_pages(swap, space, next, window)
    }

    fn new(swap: &SwapDisk, purpose: Purpose, first: SlotNumber, start: u64, window: Window) -> Self {
        let (distances, versions) = ([0; MAX_READ_AHEAD], [None; MAX_READ_AHEAD]);
        Self { disk: swap.disk, purpose, first, start, distances, versions, count: 0, least: 0, window }
    }

    /// Adds what begins in the next slot.
    fn push(&mut self, page: u64, version: SlotVersion, slots: usize) {
        let distance = page.saturating_sub(self.start) / FRAME_BYTES;
        self.distances[self.count] = u16::try_from(distance).unwrap_or(u16::MAX);
        self.versions[self.count] = Some(version);
        self.count += slots;
        self.least = if self.least == 0 { slots } else { self.least };
    }

    /// Returns the page that is to be read from the slot at a place.
    pub(super) fn page(&self, place: usize) -> u64 {
        self.start + u64::from(self.distances[place]) * FRAME_BYTES
    }

    /// Returns whether the plan reads what begins in a slot and has this version.
    pub(super) fn includes(&self, slot: SlotNumber, version: SlotVersion) -> bool {
        let place = slot.distance_from(self.first).filter(|place| *place < self.count);
        place.is_some_and(|place| self.versions[place] == Some(version))
    }

    /// Returns what the slot at a place holds, unless that has changed since it was planned.
    pub(super) fn unchanged(&self, swap: &SwapDisk, place: usize) -> Option<SlotContents> {
        let slot = self.first.plus(place);
        let (contents, version) = swap.slots.contents(slot)?;
        self.includes(slot, version).then_some(contents)
    }

    /// Returns whether the read continues another, so that what follows is likely to be wanted.
    pub(super) fn is_sequential(&self) -> bool {
        self.window.is_sequential()
    }

    /// Returns whether the plan reads a page in `pages`. The pages of zspages are not known.
    pub(super) fn reads_any_of(&self, pages: &Range<u64>) -> bool {
        self.purpose != Purpose::CompressedPool && (0..self.count).any(|place| pages.contains(&self.page(place)))
    }

    /// Returns the end of the read in its sequence: pages follow each other by address, zspages by
    /// their position on the disk.
    pub(super) fn end(&self) -> u64 {
        match self.purpose {
            Purpose::CompressedPool => self.first.plus(self.count).position(),
            _ => self.page(self.count - 1) + FRAME_BYTES,
        }
    }
}

/// Returns where the page at `at` is stored, if it was evicted and its region still exists.
pub(super) fn swap_entry_at(space: &Space, at: u64) -> Option<SwapEntry> {
    let tables = space.regions.find(at).and(space.tables())?;
    match tables.page_state(at) {
        PageState::Swapped(entry) => Some(entry),
        PageState::Empty | PageState::Mapped | PageState::Leaving => None,
    }
}

/// Returns the slot that holds the page at `at` uncompressed, if one does.
pub(super) fn slot_of(space: &Space, at: u64) -> Option<SlotNumber> {
    match swap_entry_at(space, at)?.stored {
        Stored::OnDisk(slot) => Some(slot),
        _ => None,
    }
}
