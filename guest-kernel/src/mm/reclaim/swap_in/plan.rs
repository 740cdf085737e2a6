//! What is read from the swap disk at once: slots in a row that hold the same kind of thing, pages
//! or groups of the compressed pool, and what they held when that was decided.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE};

use crate::config::MAX_READ_AHEAD;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::PageState;
use crate::mm::reclaim::Reclaimer;
use crate::mm::reclaim::swap::disk::Disk;
use crate::mm::reclaim::swap::entry::Stored;
use crate::mm::reclaim::swap::slot_map::{Kept, SlotNumber, SlotVersion};
use crate::mm::reclaim::swap::swap_disk::SwapDisk;
use crate::mm::reclaim::swap_in::frames::{GAP_BYTES, Window};
use crate::mm::{SPACE, Space};

/// Slots to be read.
pub(crate) struct Plan {
    pub(crate) disk: &'static dyn Disk,
    /// What the frames are for that are read into: committed to pages, or the compressed pool's.
    pub(crate) purpose: Purpose,
    pub(crate) first: SlotNumber,
    /// The page in each slot. Groups say themselves which pages are in them.
    pub(crate) pages: [u64; MAX_READ_AHEAD],
    /// `None` where a slot belongs to the group before it.
    versions: [Option<SlotVersion>; MAX_READ_AHEAD],
    pub(crate) count: usize,
    /// Slots that what is wanted takes.
    pub(crate) least: usize,
    /// How far to read, and so how much farther the next time.
    window: Window,
}

impl Plan {
    fn new(disk: &'static dyn Disk, purpose: Purpose, first: SlotNumber, window: Window) -> Self {
        let (pages, versions) = ([0; MAX_READ_AHEAD], [None; MAX_READ_AHEAD]);
        Self { disk, purpose, first, pages, versions, count: 0, least: 0, window }
    }

    /// Adds what begins in the next slot.
    fn push(&mut self, page: u64, version: SlotVersion, slots: usize) {
        (self.pages[self.count], self.versions[self.count]) = (page, Some(version));
        self.count += slots;
        self.least = if self.least == 0 { slots } else { self.least };
    }

    /// Whether what begins in a slot and has this version is to be read.
    pub(crate) fn includes(&self, slot: SlotNumber, version: SlotVersion) -> bool {
        let place = slot.distance_from(self.first).filter(|place| *place < self.count);
        place.is_some_and(|place| self.versions[place] == Some(version))
    }

    /// Whether it goes on with an earlier read, so that more is likely to be wanted behind it.
    pub(crate) fn is_sequential(&self) -> bool {
        self.window.is_sequential()
    }

    /// Whether a page in `pages` is to be read; nothing is known of pages in groups.
    pub(crate) fn concerns(&self, pages: &core::ops::Range<u64>) -> bool {
        self.pages[..self.count].iter().any(|page| pages.contains(page))
    }

    /// Where it ends among reads that may follow each other: those of pages by address, those of
    /// groups by place on the disk.
    fn end(&self) -> u64 {
        match self.purpose {
            Purpose::CompressedPool => self.first.plus(self.count).position(),
            _ => self.pages[self.count - 1] + FRAME_BYTES,
        }
    }
}

impl Reclaimer {
    /// What to read for the page at `at`; `None` when it is not on disk (any more).
    pub(crate) fn plan_read(&mut self, at: u64) -> Option<Plan> {
        let space = SPACE.lock();
        match crate::mm::reclaim::swap_in::restore::swapped(&space, at)?.stored {
            Stored::OnDisk(_) => {
                let window = self.page_reads.window_at(at);
                let plan = self.plan_pages(&space, at, window)?;
                self.page_reads.has_read_to(plan.end());
                Some(plan)
            }
            Stored::CompressedOnDisk(slot, _) => {
                let window = self.zspage_reads.window_at(slot.position());
                let plan = self.plan_zspages(slot, window)?;
                self.zspage_reads.has_read_to(plan.end());
                Some(plan)
            }
            Stored::Filled(_) | Stored::Compressed(_) | Stored::InFile => None,
        }
    }

    /// What to read behind `plan`, and is not being read already.
    pub(crate) fn plan_behind(&self, plan: &Plan) -> Option<Plan> {
        let window = plan.window.next();
        if plan.purpose == Purpose::CompressedPool {
            let next = plan.first.plus(plan.count);
            return if self.is_read_ahead(next) { None } else { self.plan_zspages(next, window) };
        }
        let space = SPACE.lock();
        let mut pages = (plan.end()..=plan.end() + GAP_BYTES).step_by(FRAME_SIZE);
        let next = pages.find(|page| slot_of(&space, *page).is_some_and(|slot| !self.is_read_ahead(slot)))?;
        self.plan_pages(&space, next, window)
    }

    /// Pages from `at` on. They are found again by their addresses, so they follow each other in
    /// memory as they do on disk; pages in between may be elsewhere, as not all go at once.
    fn plan_pages(&self, space: &Space, at: u64, window: Window) -> Option<Plan> {
        let first = slot_of(space, at)?;
        let SwapDisk { disk, slots, .. } = self.swap_disk.as_ref()?;
        let mut plan = Plan::new(*disk, Purpose::Committed, first, window);
        let mut next = at;
        while plan.count < window.slots() {
            let slot = first.plus(plan.count);
            let Some((Kept::Page, version)) = slots.kept(slot) else { break };
            let mut pages = (next..=next + GAP_BYTES).step_by(FRAME_SIZE);
            let Some(page) = pages.find(|page| slot_of(space, *page) == Some(slot)) else { break };
            plan.push(page, version, 1);
            next = page + FRAME_BYTES;
        }
        (plan.count > 0).then_some(plan)
    }

    /// Groups from `slot` on.
    fn plan_zspages(&self, first: SlotNumber, window: Window) -> Option<Plan> {
        let SwapDisk { disk, slots, .. } = self.swap_disk.as_ref()?;
        let mut plan = Plan::new(*disk, Purpose::CompressedPool, first, window);
        while plan.count < window.slots()
            && let Some((Kept::Zspage { slots, .. }, version)) = slots.kept(first.plus(plan.count))
            && plan.count + slots <= MAX_READ_AHEAD
        {
            plan.push(0, version, slots);
        }
        (plan.count > 0).then_some(plan)
    }

    /// What a slot holds, unless that has changed since it was planned to be read.
    pub(crate) fn still_kept(&self, plan: &Plan, place: usize) -> Option<Kept> {
        let slot = plan.first.plus(place);
        let (kept, version) = self.swap_disk.as_ref()?.slots.kept(slot)?;
        plan.includes(slot, version).then_some(kept)
    }
}

/// The slot that holds the page at `at` as it was, if one does.
pub(crate) fn slot_of(space: &Space, at: u64) -> Option<SlotNumber> {
    match space.tables()?.page_state(at) {
        PageState::Swapped(entry) if space.regions.find(at).is_some() => match entry.stored {
            Stored::OnDisk(slot) => Some(slot),
            _ => None,
        },
        _ => None,
    }
}
