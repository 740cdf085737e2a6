//! Where the contents of a page are that is not in memory: the value of its page table entry while
//! it is not present.
//!
//! | bits   | field                                                                                |
//! |--------|--------------------------------------------------------------------------------------|
//! | 0..3   | 0: not present, and different from a translation that was merely revoked              |
//! | 3..6   | kind: 1 filled, 2 compressed, 3 on disk, 4 compressed and on disk, 5 in a file       |
//! | 6..13  | the page's age with the policy when it was evicted                              |
//! | 13..45 | filled: the 32-bit pattern · compressed: [`Place`] · on disk: [`SlotNumber`]         |
//! | 45..64 | when it was evicted: the low 19 bits of half the eviction count                      |
//!
//! What is compressed and on disk has the page's number in its slot in the low four bits of that
//! field, and the slot above them.

use aerostat_reclaim_policy::Age;

use crate::mm::reclaim::swap::compressed_pool::Place;
use crate::mm::reclaim::swap::slot_map::SlotNumber;

const KIND_SHIFT: u32 = 3;
const KIND_MASK: u64 = 0b111;
const FILLED: u64 = 1;
const COMPRESSED: u64 = 2;
const ON_DISK: u64 = 3;
const COMPRESSED_ON_DISK: u64 = 4;
const IN_FILE: u64 = 5;
const AGE_SHIFT: u32 = 6;
const PAYLOAD_SHIFT: u32 = 13;
const PAYLOAD_MASK: u64 = 0xffff_ffff;
const INDEX_BITS: u32 = 4;
const COUNT_SHIFT: u32 = 45;
/// Half the eviction count fits 19 bits.
const COUNT_MASK: u64 = (1 << 20) - 2;
/// Bits of a age that there is room for, here and in the entry of a mapped page.
pub(crate) const AGE_BITS: u32 = 7;
pub(crate) const AGE_MASK: u8 = (1 << AGE_BITS) - 1;
/// Present, writable, user: any of them marks a mapping, in force or revoked.
const MAPPING_MASK: u64 = 0b111;

/// Where a page's contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nowhere: the page is this word, over and over.
    Filled(u32),
    /// In the compressed pool.
    Compressed(Place),
    /// On disk, as it was.
    OnDisk(SlotNumber),
    /// On disk, in a frame of the compressed pool: slot and number of the page in it.
    CompressedOnDisk(SlotNumber, u8),
    /// Where it came from: the file that its region maps.
    InFile,
}

/// A page that was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SwapEntry {
    pub(crate) stored: Stored,
    /// What the policy thought of it last.
    pub(crate) age: Age,
    /// The eviction's number, even and modulo 2^20: the distance of a refault follows from it.
    pub(crate) count: u32,
}

impl SwapEntry {
    /// The page table entry's value.
    pub(crate) fn encode(self) -> u64 {
        let (kind, payload) = match self.stored {
            Stored::Filled(pattern) => (FILLED, pattern),
            Stored::Compressed(place) => (COMPRESSED, place.0),
            Stored::OnDisk(slot) => (ON_DISK, slot.0),
            Stored::CompressedOnDisk(slot, index) => (COMPRESSED_ON_DISK, slot.0 << INDEX_BITS | u32::from(index)),
            Stored::InFile => (IN_FILE, 0),
        };
        kind << KIND_SHIFT
            | u64::from(self.age.0 & AGE_MASK) << AGE_SHIFT
            | u64::from(payload) << PAYLOAD_SHIFT
            | (u64::from(self.count) & COUNT_MASK) >> 1 << COUNT_SHIFT
    }

    /// What a page table entry's value says; `None` when it is empty or a mapping.
    pub(crate) fn decode(value: u64) -> Option<Self> {
        if value & MAPPING_MASK != 0 {
            return None;
        }
        let payload = u32::try_from(value >> PAYLOAD_SHIFT & PAYLOAD_MASK).ok()?;
        let stored = match value >> KIND_SHIFT & KIND_MASK {
            FILLED => Stored::Filled(payload),
            COMPRESSED => Stored::Compressed(Place(payload)),
            ON_DISK => Stored::OnDisk(SlotNumber(payload)),
            COMPRESSED_ON_DISK => {
                let index = u8::try_from(payload & ((1 << INDEX_BITS) - 1)).ok()?;
                Stored::CompressedOnDisk(SlotNumber(payload >> INDEX_BITS), index)
            }
            IN_FILE => Stored::InFile,
            _ => return None,
        };
        let age = Age(u8::try_from(value >> AGE_SHIFT & u64::from(AGE_MASK)).ok()?);
        Some(Self { stored, age, count: u32::try_from(value >> COUNT_SHIFT << 1).ok()? })
    }

    /// Evictions since this one, where `now` is the eviction count.
    pub(crate) fn distance(self, now: u32) -> u64 {
        u64::from(now).wrapping_sub(u64::from(self.count)) & COUNT_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::{AGE_MASK, Age, Place, SlotNumber, Stored, SwapEntry};
    use proptest::{prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn entries_survive_a_round_trip(payload: u32, age in 0..=AGE_MASK, count in 0_u32..1 << 19, kind in 0..5) {
            let slot = SlotNumber(payload >> 8);
            let stored = match kind {
                0 => Stored::Filled(payload),
                1 => Stored::Compressed(Place(payload)),
                2 => Stored::OnDisk(slot),
                3 => Stored::CompressedOnDisk(slot, u8::try_from(payload % 16).unwrap()),
                _ => Stored::InFile,
            };
            let entry = SwapEntry { stored, age: Age(age), count: 2 * count };
            prop_assert_eq!(SwapEntry::decode(entry.encode()), Some(entry));
        }
    }

    #[test]
    fn empty_and_mapped_entries_are_no_swap_entries() {
        assert_eq!(SwapEntry::decode(0), None);
        assert_eq!(SwapEntry::decode(0x1234_5007), None);
        assert_eq!(SwapEntry::decode(0x1234_5006), None, "a revoked mapping");
    }

    #[test]
    fn distances_survive_the_counter_turning_over() {
        let entry = SwapEntry { stored: Stored::Filled(0), age: Age(0), count: (1 << 20) - 2 };
        assert_eq!(entry.distance(4), 6);
    }
}
