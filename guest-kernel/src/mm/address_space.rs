//! Regions: which parts of the address space an application may touch, and what a page fault in them means.
//!
//! A *region* is a range of pages that was promised memory when it was made. Regions begin at multiples of 2 MiB, so that a slot
//! of the page tables belongs to one region at most; the space between two regions is never mapped. [`resolve`] is the decision
//! behind every page fault, and pure: the mechanism in [`super::fault`] carries it out.

use core::fmt;
use core::ops::Range;

use allocator_api2::vec::Vec;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_BYTES};

use super::kernel_heap::KernelHeap;
use super::page_table::{Access, PageState, Slot};
use super::reclaim::balance::PageKind;
use crate::config::FAULT_AROUND_PAGES;

/// What a region's pages are made of, and so what a fault in it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionKind {
    /// Memory that begins as zero, comes with the first touch and can be evicted.
    Anonymous,
    /// What is on a disk, for reading.
    File,
    /// The places of all threads' stacks: what is in use there is mapped as a whole, the rest is guard.
    Stack,
    /// Memory of the kernel that was mapped as a whole when it was made.
    Pinned,
}

/// A range of pages of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) kind: RegionKind,
    /// What an application may do to it.
    pub(crate) access: Access,
    /// First byte and the byte behind the last, whole pages.
    pub(crate) range: Range<u64>,
    /// Where the next region's distance begins: behind `range` while pages that were given up are still on their way out.
    pub(crate) taken_end: u64,
    /// Frames of the region's promise that no page has: never touched, or evicted.
    pub(crate) promise: FrameCount,
    /// Page faults in the region, and pages of it that came back after an eviction.
    pub(crate) faults: u64,
    pub(crate) restores: u64,
}

impl Region {
    fn new(kind: RegionKind, range: Range<u64>, promise: FrameCount) -> Self {
        let access = match kind {
            RegionKind::File => Access::ReadOnly,
            RegionKind::Anonymous | RegionKind::Stack | RegionKind::Pinned => Access::ReadWrite,
        };
        let taken_end = range.end;
        Self { kind, access, range, taken_end, promise, faults: 0, restores: 0 }
    }

    /// What its pages are to reclaim; none of its business where they stay.
    fn page_kind(&self) -> Option<PageKind> {
        match self.kind {
            RegionKind::Anonymous => Some(PageKind::Anonymous),
            RegionKind::File => Some(PageKind::File),
            RegionKind::Stack | RegionKind::Pinned => None,
        }
    }

    /// Frames that a region of `bytes` needs at most: its pages and a page table for every slot it touches.
    pub(crate) fn promise_for(bytes: u64) -> FrameCount {
        FrameCount::from_bytes_ceil(bytes).saturating_add(FrameCount(bytes.div_ceil(HUGE_BYTES)))
    }
}

/// What to do about a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Map a zeroed huge frame at this address; where no huge frame is free, map the pages instead.
    MapHuge { at: u64, pages: PageWindow },
    /// Map zeroed frames at those pages that are not mapped yet.
    MapPages(PageWindow),
    /// Bring the page at this address back: it was evicted, or is about to be.
    Restore { at: u64 },
    /// Read the page at this address from its file.
    ReadFile { at: u64 },
    /// The page is mapped: somebody else was faster.
    AlreadyMapped,
    /// Nobody may do this.
    Violation(Violation),
}

/// What was wrong about an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// No region covers the address.
    NoRegion,
    /// A write to the region from `start` to `end`, which may only be read.
    ReadOnly { start: u64, end: u64 },
    /// Nothing is mapped between two stacks.
    StackGuard,
    /// What is not mapped of the kernel's own memory never will be.
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

/// An access that the CPU did not carry out: what was tried, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) address: u64,
    /// Whether it was to read or to write.
    pub(crate) access: Access,
}

/// Decides about a fault in `region`, where the page tables hold `slot` and, for the page itself, `page`.
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

/// The aligned neighbourhood of `address`, cut to the region.
fn window(region: &Region, address: u64) -> PageWindow {
    let bytes = FAULT_AROUND_PAGES * FRAME_BYTES;
    let at = (address - address % bytes).max(region.range.start);
    let end = (address - address % bytes + bytes).min(region.range.end);
    PageWindow { at, pages: (end - at) / FRAME_BYTES }
}

/// All regions, in the order of their addresses.
#[derive(Debug)]
pub(crate) struct Regions {
    list: Vec<Region, KernelHeap>,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Self { list: Vec::new_in(KernelHeap) }
    }

    /// The region that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get(index).filter(|region| region.range.contains(&address))
    }

    /// The same, to change it.
    pub(crate) fn find_mut(&mut self, address: u64) -> Option<&mut Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get_mut(index).filter(|region| region.range.contains(&address))
    }

    /// Notes that `frames` frames of the promise of the region that holds `address` were drawn.
    pub(crate) fn draw(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            debug_assert!(region.promise >= frames, "a region drew more than it was promised");
            region.promise = region.promise.saturating_sub(frames);
        }
    }

    /// Notes that `frames` frames were given up, and that the region that holds `address` is promised them again.
    pub(crate) fn restore_promise(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            region.promise = region.promise.saturating_add(frames);
        }
    }

    /// The first slot at or behind `address` that belongs to a region with pages of this kind, from `address` on, and where it or the
    /// region ends.
    pub(crate) fn next_slot(&self, kind: PageKind, address: u64) -> Option<(u64, u64)> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        let region = self
            .list
            .get(index..)?
            .iter()
            .find(|region| region.page_kind() == Some(kind) && !region.range.is_empty())?;
        let at = address.max(region.range.start);
        Some((at, (at + 1).next_multiple_of(HUGE_BYTES).min(region.range.end)))
    }

    /// Puts a region of `bytes` into the first gap of `within`, an unmapped slot apart from its neighbours; `None` when there is
    /// no such gap or the kernel heap is full.
    pub(crate) fn insert(
        &mut self,
        kind: RegionKind,
        within: Range<u64>,
        bytes: u64,
        promise: FrameCount,
    ) -> Option<u64> {
        let mut start = within.start;
        let mut index = self.list.partition_point(|region| region.taken_end <= start);
        while let Some(next) = self.list.get(index) {
            if next.range.start >= start.checked_add(bytes)?.checked_add(HUGE_BYTES)? {
                break;
            }
            start = next.taken_end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES;
            index += 1;
        }
        let end = start.checked_add(bytes).filter(|&end| end <= within.end)?;
        self.list.try_reserve(1).ok()?;
        self.list.insert(index, Region::new(kind, start..end, promise));
        Some(start)
    }

    /// Adds a region of the kernel's at a place of its own; `false` when the place is taken or the kernel heap is full.
    pub(crate) fn place(&mut self, kind: RegionKind, range: Range<u64>) -> bool {
        let index = self.list.partition_point(|region| region.taken_end <= range.start);
        let is_free = self.list.get(index).is_none_or(|next| next.range.start >= range.end);
        if !is_free || self.list.try_reserve(1).is_err() {
            return false;
        }
        self.list.insert(index, Region::new(kind, range, FrameCount::ZERO));
        true
    }

    /// Ends the region that begins at `start` earlier, and returns what it gives up. Those addresses stay taken until the caller
    /// says otherwise: a region that began among pages on their way out would find them mapped, and then lose them.
    pub(crate) fn shorten(&mut self, start: u64, end: u64) -> Option<Range<u64>> {
        let region = self.list.iter_mut().find(|region| region.range.start == start && region.range.end > end)?;
        let given_up = end..region.range.end;
        region.range.end = end;
        Some(given_up)
    }

    /// Takes out the region that begins at `start`.
    pub(crate) fn remove(&mut self, start: u64) -> Option<Region> {
        let index = self.list.iter().position(|region| region.range.start == start)?;
        Some(self.list.remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, PageWindow, Region, RegionKind, Regions, Resolution, Violation, resolve};
    use crate::mm::page_table::{Access, PageState, Slot};
    use crate::mm::reclaim::balance::PageKind;
    use crate::mm::reclaim::swap_entry::{Stored, SwapEntry};
    use aerostat_abi::units::{FrameCount, HUGE_BYTES};
    use aerostat_reclaim_policy::Standing;
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    const BASE: u64 = 0x4100_0000_0000;

    fn region(bytes: u64) -> Region {
        Region::new(RegionKind::Anonymous, BASE..BASE + bytes, FrameCount(0))
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
        let entry = SwapEntry { stored: Stored::Filled(0), standing: Standing(0), count: 0 };
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
        assert!(regions.place(RegionKind::Stack, BASE..BASE + 3 * HUGE_BYTES));
        assert!(!regions.place(RegionKind::Pinned, BASE + HUGE_BYTES..BASE + 4 * HUGE_BYTES), "taken");
        let start = regions.insert(RegionKind::Anonymous, BASE..BASE + (1 << 30), HUGE_BYTES, FrameCount(0)).unwrap();
        assert!(start > BASE + 3 * HUGE_BYTES);
        assert_eq!(regions.next_slot(PageKind::Anonymous, 0), Some((start, start + HUGE_BYTES)));
        assert_eq!(regions.next_slot(PageKind::Anonymous, start + HUGE_BYTES), None);
    }

    #[test]
    fn what_a_region_gives_up_stays_taken_until_it_is_gone() {
        let mut regions = Regions::new();
        let insert = |regions: &mut Regions| {
            regions.insert(RegionKind::Anonymous, BASE..BASE + (1 << 30), HUGE_BYTES, FrameCount(0)).unwrap()
        };
        let first = insert(&mut regions);
        assert_eq!(regions.shorten(first + 4096, first), None, "no region begins there");
        assert_eq!(regions.shorten(first, first), Some(first..first + HUGE_BYTES));
        assert_eq!(regions.shorten(first, first), None, "only one can end it");
        assert_eq!(regions.find(first), None);
        let second = insert(&mut regions);
        assert_eq!(second, first + 2 * HUGE_BYTES);
        assert!(regions.remove(first).is_some());
        assert_eq!(insert(&mut regions), first);
    }

    proptest! {
        #[test]
        fn regions_never_meet(steps in vec((0_u64..8, 1_u64..5_000_000), 1..60)) {
            let mut regions = Regions::new();
            let mut starts = Vec::new();
            for (choice, bytes) in steps {
                if choice == 0 && !starts.is_empty() {
                    let start = starts.swap_remove(usize::try_from(bytes).unwrap() % starts.len());
                    prop_assert!(regions.remove(start).is_some());
                } else {
                    starts.extend(regions.insert(RegionKind::Anonymous, BASE..BASE + (1 << 30), bytes.next_multiple_of(4096), FrameCount(0)));
                }
                for pair in regions.list.windows(2) {
                    prop_assert!(pair[0].range.end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES <= pair[1].range.start);
                }
                for &start in &starts {
                    prop_assert!(regions.find(start).is_some_and(|region| region.range.start == start));
                }
            }
        }
    }
}
