//! The decision behind every page fault. Pure: [`fault`](crate::mm::fault) carries it out.

use core::fmt;

use aerostat_abi::units::{FRAME_BYTES, HUGE_BYTES};

use super::{Region, RegionKind};
use crate::config::FAULT_AROUND_PAGES;
use crate::mm::page_table::{Access, PageState, Slot};

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

#[cfg(test)]
mod tests {
    use super::{Fault, PageWindow, Region, RegionKind, Resolution, Violation, resolve};
    use crate::mm::page_table::{Access, PageState, Slot};
    use crate::mm::reclaim::swap::entry::{Stored, SwapEntry};
    use aerostat_abi::units::{FrameCount, HUGE_BYTES};
    use aerostat_reclaim_policy::Age;

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
}
