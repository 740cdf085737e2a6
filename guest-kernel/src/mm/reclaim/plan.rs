//! What is read from the swap disk at once: slots in a row that hold the same kind of thing, pages or groups of the compressed tier,
//! and what they held when that was decided.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE};

use super::Reclaimer;
use super::disk::Disk;
use super::incoming::{GAP_BYTES, ReadAhead};
use super::slot_map::{Kept, SlotNumber, SlotVersion};
use super::swap_disk::SwapDisk;
use super::swap_entry::Stored;
use crate::config::MAX_READ_AHEAD;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::PageState;
use crate::mm::{SPACE, Space};

/// Slots to be read.
pub(super) struct Plan {
    pub(super) disk: &'static dyn Disk,
    /// What the frames are for that are read into: promised to pages, or the tier's.
    pub(super) purpose: Purpose,
    pub(super) first: SlotNumber,
    /// The page in each slot. Groups say themselves which pages are in them.
    pub(super) pages: [u64; MAX_READ_AHEAD],
    /// `None` where a slot belongs to the group before it.
    versions: [Option<SlotVersion>; MAX_READ_AHEAD],
    pub(super) count: usize,
    /// Slots that what is wanted takes.
    pub(super) least: usize,
}

impl Plan {
    fn new(disk: &'static dyn Disk, purpose: Purpose, first: SlotNumber) -> Self {
        let (pages, versions) = ([0; MAX_READ_AHEAD], [None; MAX_READ_AHEAD]);
        Self { disk, purpose, first, pages, versions, count: 0, least: 0 }
    }

    /// Adds what begins in the next slot.
    fn push(&mut self, page: u64, version: SlotVersion, slots: usize) {
        (self.pages[self.count], self.versions[self.count]) = (page, Some(version));
        self.count += slots;
        self.least = if self.least == 0 { slots } else { self.least };
    }

    /// Whether what begins in a slot and has this version is to be read.
    pub(super) fn includes(&self, slot: SlotNumber, version: SlotVersion) -> bool {
        let place = slot.distance_from(self.first).filter(|place| *place < self.count);
        place.is_some_and(|place| self.versions[place] == Some(version))
    }

    /// Whether a page in `pages` is to be read; nothing is known of pages in groups.
    pub(super) fn concerns(&self, pages: &core::ops::Range<u64>) -> bool {
        self.pages[..self.count].iter().any(|page| pages.contains(page))
    }

    /// Where a read begins and ends among those that may follow each other: pages by address, groups by place on the disk.
    fn positions(&self) -> (u64, u64) {
        match self.purpose {
            Purpose::Tier => (self.first.position(), self.first.plus(self.count).position()),
            _ => (self.pages[0], self.pages[self.count - 1] + FRAME_BYTES),
        }
    }
}

impl Reclaimer {
    /// What to read for the page at `at`; `None` when it is not on disk (any more).
    pub(super) fn plan_read(&mut self, at: u64) -> Option<Plan> {
        let space = SPACE.lock();
        match super::restore::swapped(&space, at)?.stored {
            Stored::OnDisk(_) => self.plan_pages(&space, at),
            Stored::CompressedOnDisk(slot, _) => self.plan_groups(slot),
            Stored::Filled(_) | Stored::Compressed(_) | Stored::InFile => None,
        }
    }

    /// What to read behind `plan`, if reads have followed each other so far.
    pub(super) fn plan_behind(&mut self, plan: &Plan) -> Option<Plan> {
        if !self.stream(plan.purpose).is_sequential() {
            return None;
        }
        let (_, end) = plan.positions();
        if plan.purpose == Purpose::Tier {
            return self.plan_groups(plan.first.plus(plan.count));
        }
        let space = SPACE.lock();
        let next = (end..=end + GAP_BYTES).step_by(FRAME_SIZE).find(|page| slot_of(&space, *page).is_some())?;
        self.plan_pages(&space, next)
    }

    /// Pages from `at` on. They are found again by their addresses, so they follow each other in memory as they do on disk; pages
    /// in between may be elsewhere, as not all go at once.
    fn plan_pages(&mut self, space: &Space, at: u64) -> Option<Plan> {
        let first = slot_of(space, at)?;
        let SwapDisk { disk, slots, .. } = self.swap_disk.as_ref()?;
        let mut plan = Plan::new(*disk, Purpose::Promised, first);
        let wanted = self.page_reads.slots_at(at);
        let mut next = at;
        while plan.count < wanted {
            let slot = first.plus(plan.count);
            let Some((Kept::Page, version)) = slots.kept(slot) else { break };
            let mut candidates = (next..=next + GAP_BYTES).step_by(FRAME_SIZE);
            let Some(page) = candidates.find(|page| slot_of(space, *page) == Some(slot)) else { break };
            plan.push(page, version, 1);
            next = page + FRAME_BYTES;
        }
        self.is_planned(plan)
    }

    /// Groups from `slot` on.
    fn plan_groups(&mut self, first: SlotNumber) -> Option<Plan> {
        let SwapDisk { disk, slots, .. } = self.swap_disk.as_ref()?;
        let mut plan = Plan::new(*disk, Purpose::Tier, first);
        let wanted = self.group_reads.slots_at(first.position());
        while plan.count < wanted
            && let Some((Kept::Group { slots, .. }, version)) = slots.kept(first.plus(plan.count))
            && plan.count + slots <= MAX_READ_AHEAD
        {
            plan.push(0, version, slots);
        }
        self.is_planned(plan)
    }

    fn is_planned(&mut self, plan: Plan) -> Option<Plan> {
        (plan.count > 0).then(|| {
            let (_, end) = plan.positions();
            self.stream(plan.purpose).has_read_to(end);
            plan
        })
    }

    fn stream(&mut self, purpose: Purpose) -> &mut ReadAhead {
        if purpose == Purpose::Tier { &mut self.group_reads } else { &mut self.page_reads }
    }

    /// What a slot holds, unless that has changed since it was planned to be read.
    pub(super) fn still_kept(&self, plan: &Plan, place: usize) -> Option<Kept> {
        let slot = plan.first.plus(place);
        let (kept, version) = self.swap_disk.as_ref()?.slots.kept(slot)?;
        plan.includes(slot, version).then_some(kept)
    }
}

/// The slot that holds the page at `at` as it was, if one does.
pub(super) fn slot_of(space: &Space, at: u64) -> Option<SlotNumber> {
    match space.tables()?.page_state(at) {
        PageState::Swapped(entry) if space.regions.find(at).is_some() => match entry.stored {
            Stored::OnDisk(slot) => Some(slot),
            _ => None,
        },
        _ => None,
    }
}
