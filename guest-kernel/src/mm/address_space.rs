//! Regions: which parts of the address space an application may touch, and what a page fault in
//! them means.
//!
//! A *region* is a range of pages whose memory was committed when the region was created. Regions
//! begin at multiples of 2 MiB, so that each slot of the page tables belongs to at most one region;
//! the space between two regions is never mapped. [`resolve`] is the decision behind every page
//! fault. It is pure: [`super::fault`] carries the decision out.

use core::fmt;
use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_BYTES};

use super::block::Block;
use super::page_table::{Access, PageState, Slot};
use super::reclaim::scan::balance::PageKind;
use super::region_list::{InsertError, Position, RegionList};
use crate::config::FAULT_AROUND_PAGES;

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
    pub(crate) taken_end: u64,
    /// Frames of the region's commit charge that no page uses: the page was never touched, or is
    /// evicted.
    pub(crate) commit_charge: FrameCount,
    /// Page faults in the region, and pages of it that were restored after an eviction.
    pub(crate) faults: u64,
    pub(crate) restores: u64,
}

impl Region {
    fn new(kind: RegionKind, range: Range<u64>, commit_charge: FrameCount) -> Self {
        let access = match kind {
            RegionKind::File => Access::ReadOnly,
            RegionKind::Anonymous | RegionKind::Stack | RegionKind::Pinned => Access::ReadWrite,
        };
        let taken_end = range.end;
        Self { kind, access, range, taken_end, commit_charge, faults: 0, restores: 0 }
    }

    /// Returns how reclaim treats the region's pages; `None` where they always stay.
    fn page_kind(&self) -> Option<PageKind> {
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

/// What to do about a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Map a zeroed huge frame at this address, or the pages where no huge frame is free.
    MapHuge { at: u64, pages: PageWindow },
    /// Map zeroed frames at those of the pages that are not mapped yet.
    MapPages(PageWindow),
    /// Restore the page at this address: it was evicted, or is about to be.
    Restore { at: u64 },
    /// Read the page at this address from its file.
    ReadFile { at: u64 },
    /// Do nothing: another thread has mapped the page.
    AlreadyMapped,
    /// Refuse the access.
    Violation(Violation),
}

/// What was wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// No region covers the address.
    NoRegion,
    /// A write to the region from `start` to `end`, which may only be read.
    ReadOnly { start: u64, end: u64 },
    /// The access hit the guard between two stacks, which is never mapped.
    StackGuard,
    /// The access hit memory of the kernel that is not mapped and never will be.
    Pinned,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegion => f.write_str("no region is there"),
            Self::ReadOnly { start, end } => write!(f, "a write to the read-only region {start:#x} to {end:#x}"),
            Self::StackGuard => f.write_str("the guard below a thread's stack"),
            Self::Pinned => f.write_str("beyond memory that the kernel has pinned"),
        }
    }
}

/// A run of 4 KiB pages within one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageWindow {
    pub(crate) at: u64,
    pub(crate) pages: u64,
}

/// An access that faulted: what was tried, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: u64,
    /// Whether it was a read or a write.
    pub(crate) access: Access,
}

/// Decides what to do about a fault in `region`. The page tables hold `slot`, and `page` for the
/// page itself.
pub(crate) fn resolve(region: Option<&Region>, fault: Fault, slot: Slot, page: PageState) -> Resolution {
    let Some(region) = region else { return Resolution::Violation(Violation::NoRegion) };
    if (region.access, fault.access) == (Access::ReadOnly, Access::ReadWrite) {
        return Resolution::Violation(Violation::ReadOnly { start: region.range.start, end: region.range.end });
    }
    let at = fault.address - fault.address % FRAME_BYTES;
    match (region.kind, page) {
        (_, PageState::Mapped) => Resolution::AlreadyMapped,
        (RegionKind::Anonymous | RegionKind::File, PageState::Leaving)
        | (RegionKind::Anonymous, PageState::Swapped(_)) => Resolution::Restore { at },
        (RegionKind::Anonymous, PageState::Empty) => resolve_untouched(region, fault.address, slot),
        (RegionKind::File, PageState::Swapped(_) | PageState::Empty) => Resolution::ReadFile { at },
        (RegionKind::Stack, _) => Resolution::Violation(Violation::StackGuard),
        (RegionKind::Pinned, _) => Resolution::Violation(Violation::Pinned),
    }
}

fn resolve_untouched(region: &Region, address: u64, slot: Slot) -> Resolution {
    let pages = window(region, address);
    let huge = address - address % HUGE_BYTES;
    let fits = region.range.start <= huge && huge + HUGE_BYTES <= region.range.end;
    if slot == Slot::Empty && fits { Resolution::MapHuge { at: huge, pages } } else { Resolution::MapPages(pages) }
}

/// Returns the aligned window around `address`, cut to the region.
fn window(region: &Region, address: u64) -> PageWindow {
    let bytes = FAULT_AROUND_PAGES * FRAME_BYTES;
    let at = (address - address % bytes).max(region.range.start);
    let end = (address - address % bytes + bytes).min(region.range.end);
    PageWindow { at, pages: (end - at) / FRAME_BYTES }
}

/// All regions, in the order of their addresses.
#[derive(Debug)]
pub(crate) struct Regions {
    list: RegionList,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Self { list: RegionList::new() }
    }

    /// Returns the region that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get(index).filter(|region| region.range.contains(&address))
    }

    /// Returns the region that holds `address`, to change it.
    pub(crate) fn find_mut(&mut self, address: u64) -> Option<&mut Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get_mut(index).filter(|region| region.range.contains(&address))
    }

    /// Subtracts `frames` drawn frames from the commit charge of the region that holds `address`.
    pub(crate) fn draw(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            debug_assert!(region.commit_charge >= frames, "a region drew more than it was committed");
            region.commit_charge = region.commit_charge.saturating_sub(frames);
        }
    }

    /// Adds `frames` freed frames to the commit charge of the region that holds `address`.
    pub(crate) fn restore_commit_charge(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            region.commit_charge = region.commit_charge.saturating_add(frames);
        }
    }

    /// Returns the first slot at or behind `address` that belongs to a region with pages of this
    /// kind: where it starts, not before `address`, and where it or the region ends.
    pub(crate) fn next_slot(&self, kind: PageKind, address: u64) -> Option<(u64, u64)> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        let region =
            self.list.iter_from(index).find(|region| region.page_kind() == Some(kind) && !region.range.is_empty())?;
        let at = address.max(region.range.start);
        Some((at, (at + 1).next_multiple_of(HUGE_BYTES).min(region.range.end)))
    }

    /// Puts a region of `bytes` into the first gap of `within`, at least one unmapped slot apart
    /// from its neighbours. Returns where the region begins. `spare` is used when the list of
    /// regions needs another frame.
    ///
    /// # Errors
    /// [`InsertError`].
    pub(crate) fn insert(
        &mut self,
        kind: RegionKind,
        within: Range<u64>,
        bytes: u64,
        commit_charge: FrameCount,
        spare: &mut Option<Block>,
    ) -> Result<u64, InsertError> {
        let (start, end) = self.first_gap(&within, bytes).ok_or(InsertError::NoAddresses)?;
        let at = self.list.partition_point(|region| region.range.start < start);
        self.list.insert(at, Region::new(kind, start..end, commit_charge), spare)?;
        Ok(start)
    }

    fn first_gap(&self, within: &Range<u64>, bytes: u64) -> Option<(u64, u64)> {
        let mut start = within.start;
        for next in self.list.iter_from(self.list.partition_point(|region| region.taken_end <= within.start)) {
            if next.range.start >= start.checked_add(bytes)?.checked_add(HUGE_BYTES)? {
                break;
            }
            start = next.taken_end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES;
        }
        let end = start.checked_add(bytes).filter(|&end| end <= within.end)?;
        Some((start, end))
    }

    /// Adds a region of the kernel at a fixed place; otherwise as [`Self::insert`].
    ///
    /// # Errors
    /// [`InsertError`].
    #[cfg(any(test, target_os = "none"))]
    pub(crate) fn place(
        &mut self,
        kind: RegionKind,
        range: Range<u64>,
        spare: &mut Option<Block>,
    ) -> Result<(), InsertError> {
        let at = self.list.partition_point(|region| region.taken_end <= range.start);
        if self.list.get(at).is_some_and(|next| next.range.start < range.end) {
            return Err(InsertError::NoAddresses);
        }
        self.list.insert(at, Region::new(kind, range, FrameCount::ZERO), spare)
    }

    /// Moves the end of the region that begins at `start` down, and returns the range behind the
    /// new end. Those addresses stay taken until the caller releases them: a new region among pages
    /// that are still being unmapped would find them mapped, and then lose them.
    pub(crate) fn shorten(&mut self, start: u64, end: u64) -> Option<Range<u64>> {
        let at = self.position(start)?;
        let region = self.list.get_mut(at).filter(|region| region.range.end > end)?;
        let given_up = end..region.range.end;
        region.range.end = end;
        Some(given_up)
    }

    /// Removes the region that begins at `start`; `free` gets a frame that the list does not need
    /// any more.
    pub(crate) fn remove(&mut self, start: u64, free: impl FnMut(Block)) -> Option<Region> {
        let at = self.position(start)?;
        self.list.remove(at, free)
    }

    /// Returns the position of the region that begins at `start`.
    fn position(&self, start: u64) -> Option<Position> {
        let at = self.list.partition_point(|region| region.range.start < start);
        self.list.get(at).is_some_and(|region| region.range.start == start).then_some(at)
    }

    /// Forgets all regions.
    #[cfg(test)]
    pub(crate) fn clear(&mut self, free: impl FnMut(Block)) {
        self.list.clear(free);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, PageWindow, Region, RegionKind, Regions, Resolution, Violation, resolve};
    use crate::mm::block::Block;
    use crate::mm::page_table::{Access, PageState, Slot};
    use crate::mm::reclaim::scan::balance::PageKind;
    use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
    use crate::mm::region_list::InsertError;
    use crate::mm::testing::host_frame;
    use aerostat_abi::units::{FrameCount, HUGE_BYTES};
    use aerostat_reclaim_policy::Age;
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    const BASE: u64 = 0x4100_0000_0000;

    fn region(bytes: u64) -> Region {
        Region::new(RegionKind::Anonymous, BASE..BASE + bytes, FrameCount(0))
    }

    fn lose(frame: Block) {
        let _ = frame.into_number();
    }

    fn insert(regions: &mut Regions, bytes: u64) -> Option<u64> {
        let within = BASE..BASE + (1 << 40);
        let mut frame = None;
        let mut result = regions.insert(RegionKind::Anonymous, within.clone(), bytes, FrameCount(0), &mut frame);
        if result == Err(InsertError::NoFrame) {
            frame = Some(host_frame());
            result = regions.insert(RegionKind::Anonymous, within, bytes, FrameCount(0), &mut frame);
        }
        assert!(frame.is_none(), "it was asked for");
        result.ok()
    }

    fn read(address: u64) -> Fault {
        Fault { address, access: Access::ReadOnly }
    }

    #[test]
    fn an_empty_slot_is_filled_with_a_huge_page() {
        let resolution =
            resolve(Some(&region(2 * HUGE_BYTES)), read(BASE + HUGE_BYTES + 5), Slot::Empty, PageState::Empty);
        assert!(matches!(resolution, Resolution::MapHuge { at, .. } if at == BASE + HUGE_BYTES));
    }

    #[test]
    fn a_slot_that_sticks_out_of_the_region_gets_pages() {
        let resolution = resolve(Some(&region(0x5000)), read(BASE + 0x1234), Slot::Empty, PageState::Empty);
        assert_eq!(resolution, Resolution::MapPages(PageWindow { at: BASE, pages: 5 }));
    }

    #[test]
    fn a_slot_with_a_table_stays_one() {
        let resolution = resolve(Some(&region(HUGE_BYTES)), read(BASE + 0x12345), Slot::Table, PageState::Empty);
        assert_eq!(resolution, Resolution::MapPages(PageWindow { at: BASE + 0x10000, pages: 16 }));
    }

    #[test]
    fn outside_every_region_is_a_violation_and_a_mapped_page_is_fine() {
        let nowhere = resolve(None, read(0xdead_0000), Slot::Empty, PageState::Empty);
        assert_eq!(nowhere, Resolution::Violation(Violation::NoRegion));
        let mapped = resolve(Some(&region(HUGE_BYTES)), read(BASE), Slot::Huge, PageState::Mapped);
        assert_eq!(mapped, Resolution::AlreadyMapped);
    }

    #[test]
    fn a_read_only_region_is_read_from_wherever_it_is_and_never_written() {
        let region = Region { access: Access::ReadOnly, ..region(HUGE_BYTES) };
        let entry = SwapEntry { stored: Stored::Filled(0), age: Age(0), count: 0 };
        let denied = Resolution::Violation(Violation::ReadOnly { start: BASE, end: BASE + HUGE_BYTES });
        for (slot, page) in [
            (Slot::Empty, PageState::Empty),
            (Slot::Huge, PageState::Mapped),
            (Slot::Table, PageState::Leaving),
            (Slot::Table, PageState::Swapped(entry)),
        ] {
            let write = Fault { access: Access::ReadWrite, ..read(BASE) };
            assert_eq!(resolve(Some(&region), write, slot, page), denied);
            assert!(!matches!(resolve(Some(&region), read(BASE), slot, page), Resolution::Violation(_)), "{page:?}");
        }
    }

    #[test]
    fn what_is_not_mapped_of_stacks_and_pinned_memory_never_will_be() {
        for (kind, violation) in [(RegionKind::Stack, Violation::StackGuard), (RegionKind::Pinned, Violation::Pinned)] {
            let region = Region { kind, ..region(HUGE_BYTES) };
            let empty = resolve(Some(&region), read(BASE), Slot::Empty, PageState::Empty);
            assert_eq!(empty, Resolution::Violation(violation));
            assert_eq!(resolve(Some(&region), read(BASE), Slot::Table, PageState::Mapped), Resolution::AlreadyMapped);
        }
    }

    #[test]
    fn the_hand_passes_over_what_does_not_come_and_go() {
        let mut regions = Regions::new();
        assert_eq!(regions.place(RegionKind::Stack, BASE..BASE + 3 * HUGE_BYTES, &mut None), Err(InsertError::NoFrame));
        assert_eq!(regions.place(RegionKind::Stack, BASE..BASE + 3 * HUGE_BYTES, &mut Some(host_frame())), Ok(()));
        let taken = regions.place(RegionKind::Pinned, BASE + HUGE_BYTES..BASE + 4 * HUGE_BYTES, &mut None);
        assert_eq!(taken, Err(InsertError::NoAddresses));
        let start = insert(&mut regions, HUGE_BYTES).unwrap();
        assert!(start > BASE + 3 * HUGE_BYTES);
        assert_eq!(regions.next_slot(PageKind::Anonymous, 0), Some((start, start + HUGE_BYTES)));
        assert_eq!(regions.next_slot(PageKind::Anonymous, start + HUGE_BYTES), None);
    }

    #[test]
    fn a_shortened_range_stays_taken_until_it_is_released() {
        let mut regions = Regions::new();
        let insert = |regions: &mut Regions| insert(regions, HUGE_BYTES).unwrap();
        let first = insert(&mut regions);
        assert_eq!(regions.shorten(first + 4096, first), None, "no region begins there");
        assert_eq!(regions.shorten(first, first), Some(first..first + HUGE_BYTES));
        assert_eq!(regions.shorten(first, first), None, "only one can end it");
        assert_eq!(regions.find(first), None);
        let second = insert(&mut regions);
        assert_eq!(second, first + 2 * HUGE_BYTES);
        assert!(regions.remove(first, lose).is_some());
        assert_eq!(insert(&mut regions), first);
    }

    #[test]
    fn there_may_be_fifty_thousand_and_what_holds_them_goes_with_them() {
        const COUNT: usize = 50_000;
        let mut regions = Regions::new();
        let mut starts: Vec<u64> = (0..COUNT).map(|_| insert(&mut regions, HUGE_BYTES).unwrap()).collect();
        assert!(starts.iter().all(|&start| regions.find(start + 5).is_some_and(|region| region.range.start == start)));
        let mut frames = 0;
        let mut free = |frame| {
            frames += 1;
            lose(frame);
        };
        for place in (0..COUNT).step_by(2).rev() {
            assert!(regions.remove(starts.swap_remove(place), &mut free).is_some());
        }
        assert!(starts.iter().all(|&start| regions.find(start).is_some()));
        for start in starts {
            assert!(regions.remove(start, &mut free).is_some());
        }
        assert!(frames > COUNT / 64 && frames < COUNT / 16);
    }

    proptest! {
        #[test]
        fn regions_never_meet(steps in vec((0_u64..8, 1_u64..5_000_000), 1..400)) {
            let mut regions = Regions::new();
            let mut starts = Vec::new();
            for (choice, bytes) in steps {
                if choice < 3 && !starts.is_empty() {
                    let start = starts.swap_remove(usize::try_from(bytes).unwrap() % starts.len());
                    prop_assert!(regions.remove(start, lose).is_some());
                } else {
                    starts.extend(insert(&mut regions, bytes.next_multiple_of(4096)));
                }
                let list: Vec<_> = regions.list.iter_from(regions.list.partition_point(|_| false)).collect();
                for pair in list.windows(2) {
                    prop_assert!(pair[0].range.end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES <= pair[1].range.start);
                }
                for &start in &starts {
                    prop_assert!(regions.find(start).is_some_and(|region| region.range.start == start));
                }
            }
        }
    }
}
