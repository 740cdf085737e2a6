//! Guest-physical addresses: where memory and boot information lie, and what is left for devices.
//!
//! Memory fills `[0, 3 GiB)`, then skips a *hole* for devices and goes on at 4 GiB. The monitor
//! holds all of it in one mapping without the hole; a frame's place in that mapping is its *index*.
//! The hole is exactly 1 GiB and aligned, and so is the largest block that an entry may name. A
//! block therefore lies wholly below, in or above the hole, and its frames have consecutive
//! indexes.

use std::ops::Range;

use aerostat_abi::metadata;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, MAX_ORDER, to_usize};
use thiserror::Error;

/// Where the device hole begins, in bytes.
pub(super) const HOLE_START: u64 = 3 << 30;
/// Where memory goes on behind the hole.
const HOLE_END: u64 = 4 << 30;
/// Where the virtio devices' registers begin, in the hole: one page each.
pub(super) const VIRTIO_START: u64 = 0xd000_0000;
/// Boot information, the first page tables and the first stack live below this address: no image
/// may begin there.
pub(super) const LOW_END: u64 = 1 << 20;
/// The first page tables map this much; an image has to fit.
pub(super) const IDENTITY_END: u64 = 1 << 30;

/// The first descriptor table.
pub(super) const GDT: GuestAddress = GuestAddress(0x1000);
/// hermit-entry's `RawBootInfo`.
pub(super) const BOOT_INFO: GuestAddress = GuestAddress(0x2000);
/// The first page tables: one page each of levels 4, 3 and 2.
pub(super) const PAGE_TABLES: [GuestAddress; 3] = [GuestAddress(0x3000), GuestAddress(0x4000), GuestAddress(0x5000)];
/// The device tree.
pub(super) const DEVICE_TREE: GuestAddress = GuestAddress(0x1_0000);
/// Room for the device tree.
pub(super) const DEVICE_TREE_BYTES: usize = 0x1_0000;
/// Where the first stack begins, growing down. It ends, at the latest, behind the device tree.
pub(super) const STACK_TOP: GuestAddress = GuestAddress(0x8_0000);

/// The smallest and the largest memory a guest may have: guests address 512 GiB, the hole included.
const SMALLEST: FrameCount = FrameCount::from_mib(4);
const LARGEST: FrameCount = FrameCount::from_mib(511 << 10);

const _: () = assert!(
    (HOLE_END - HOLE_START).is_power_of_two()
        && HOLE_END - HOLE_START == FrameCount::of_order(MAX_ORDER).bytes()
        && HOLE_START.is_multiple_of(HOLE_END - HOLE_START),
    "a block of the largest order must not cross the hole's borders"
);

/// A guest-physical address. Unchecked until [`MemoryLayout`] has placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GuestAddress(pub(super) u64);

/// A size that no guest can have.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// Too small, too large, or not a whole number of huge frames.
    #[error("a guest's memory has to be between {SMALLEST} and {LARGEST} in steps of 2 MiB, not {0}")]
    BadSize(FrameCount),
}

/// Checks whether a guest may have `total` frames.
pub fn check_size(total: FrameCount) -> Result<(), LayoutError> {
    MemoryLayout::new(total).map(drop)
}

/// Returns the smallest size at which the kernel of a guest of `total` frames can work that has a
/// swap disk for `swap` frames; `None` where no guest can have so many frames.
pub fn smallest_size(total: FrameCount, swap: FrameCount) -> Option<FrameCount> {
    let end = MemoryLayout::new(total).ok()?.end();
    Some(metadata::smallest_size_with_swap(FrameNumber::containing(end.0), swap.0))
}

/// Where a guest's memory lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryLayout {
    total: FrameCount,
}

/// A part of guest memory without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// The first guest-physical address.
    pub(super) start: GuestAddress,
    /// The place of the first byte in the monitor's mapping.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) bytes: u64,
}

impl MemoryLayout {
    /// Creates the layout of `total` frames.
    pub(super) fn new(total: FrameCount) -> Result<Self, LayoutError> {
        if total < SMALLEST || total > LARGEST || !total.0.is_multiple_of(HUGE_FRAMES) {
            return Err(LayoutError::BadSize(total));
        }
        Ok(Self { total })
    }

    /// Returns the number of all frames.
    pub(super) const fn total(&self) -> FrameCount {
        self.total
    }

    /// Returns the one or two regions, in the order of their addresses.
    pub(super) fn regions(&self) -> impl Iterator<Item = Region> {
        let low = self.total.bytes().min(HOLE_START);
        let high = self.total.bytes() - low;
        [
            Region { start: GuestAddress(0), offset: 0, bytes: low },
            Region { start: GuestAddress(HOLE_END), offset: HOLE_START, bytes: high },
        ]
        .into_iter()
        .filter(|region| region.bytes > 0)
    }

    /// Returns the first address behind all memory.
    pub(super) fn end(&self) -> GuestAddress {
        self.regions().last().map_or(GuestAddress(0), |region| GuestAddress(region.start.0 + region.bytes))
    }

    /// Returns the place of `bytes` bytes from `start` in the monitor's mapping, or `None` where
    /// some of them are not memory.
    pub(super) fn place(&self, start: GuestAddress, bytes: u64) -> Option<Range<usize>> {
        let region = self.regions().find(|region| start >= region.start && start.0 - region.start.0 < region.bytes)?;
        let inside = start.0 - region.start.0;
        if bytes > region.bytes - inside {
            return None;
        }
        let place = to_usize(region.offset + inside);
        Some(place..place + to_usize(bytes))
    }

    /// Returns the indexes of `count` frames from `start`, or `None` where some of them are not
    /// memory.
    pub(super) fn indexes(&self, start: FrameNumber, count: FrameCount) -> Option<Range<usize>> {
        let place = self.place(GuestAddress(start.address()), count.bytes())?;
        let frame = aerostat_abi::units::FRAME_SIZE;
        Some(place.start / frame..place.end / frame)
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestAddress, MemoryLayout};
    use aerostat_abi::units::{FrameCount, FrameNumber};

    const GIB: u64 = 1 << 30;

    #[test]
    fn small_memory_is_one_region() {
        let layout = MemoryLayout::new(FrameCount::from_mib(64)).unwrap();
        assert_eq!(layout.regions().count(), 1);
        assert_eq!(layout.end(), GuestAddress(64 << 20));
        assert_eq!(layout.place(GuestAddress((64 << 20) - 8), 8), Some((64 << 20) - 8..64 << 20));
        assert_eq!(layout.place(GuestAddress((64 << 20) - 8), 16), None);
        assert_eq!(layout.place(GuestAddress(u64::MAX - 7), 16), None);
    }

    #[test]
    fn large_memory_leaves_the_hole_out() {
        let layout = MemoryLayout::new(FrameCount::from_mib(8 << 10)).unwrap();
        assert_eq!(layout.end(), GuestAddress(9 * GIB));
        assert_eq!(layout.place(GuestAddress(3 * GIB), 8), None);
        assert_eq!(layout.place(GuestAddress(3 * GIB - 8), 16), None, "no access may span the hole");
        assert_eq!(layout.place(GuestAddress(4 * GIB), 8).map(|place| place.start as u64), Some(3 * GIB));
        let block = layout.indexes(FrameNumber((4 * GIB) >> 12), FrameCount::of_order(18)).unwrap();
        assert_eq!(block, 3 << 18..4 << 18);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(MemoryLayout::new(FrameCount(0)).is_err());
        assert!(MemoryLayout::new(FrameCount(u64::MAX)).is_err());
    }
}
