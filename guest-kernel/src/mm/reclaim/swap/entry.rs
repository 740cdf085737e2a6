//! Swap entries: the value of a page table entry while its page is evicted.
//!
//! | bits   | field                                                                              |
//! |--------|------------------------------------------------------------------------------------|
//! | 0..3   | 0: not present, and different from a translation that was merely revoked           |
//! | 3..6   | kind: 1 filled, 2 compressed, 3 on disk, 4 compressed and on disk, 5 in a file     |
//! | 6..13  | the page's age when it was evicted                                                 |
//! | 13..45 | filled: the 32-bit pattern · compressed: [`Handle`] · on disk: [`SlotNumber`]      |
//! | 45..64 | when it was evicted: the low 19 bits of half the eviction count                    |
//!
//! For a page that is compressed and on disk, the low four bits of that field are its index in its
//! zspage, and the bits above them are the zspage's slot.

use aerostat_reclaim_policy::Age;

use super::compressed_pool::Handle;
use super::slot_map::SlotNumber;

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
/// Bits of an age, here and in the entry of a mapped page.
pub(crate) const AGE_BITS: u32 = 7;
pub(crate) const AGE_MASK: u8 = (1 << AGE_BITS) - 1;
/// Present, writable, user: any of them marks a mapping, valid or revoked.
const MAPPING_MASK: u64 = 0b111;

/// Where the contents of an evicted page are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nowhere: the page repeats this word.
    Filled(u32),
    /// In the compressed pool.
    Compressed(Handle),
    /// On disk, uncompressed.
    OnDisk(SlotNumber),
    /// On disk, in a zspage: the first slot of the zspage, and the index of the page in it.
    CompressedOnDisk(SlotNumber, u8),
    /// In the file that its region maps.
    InFile,
}

/// An evicted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SwapEntry {
    pub(crate) stored: Stored,
    /// The age that the policy gave it last.
    pub(crate) age: Age,
    /// The number of the eviction, even and modulo 2^20: the distance of a refault follows from it.
    pub(crate) count: u32,
}

impl SwapEntry {
    /// Returns the value of the page table entry.
    pub(crate) fn encode(self) -> u64 {
        let (kind, payload) = match self.stored {
            Stored::Filled(pattern) => (FILLED, pattern),
            Stored::Compressed(handle) => (COMPRESSED, handle.to_bits()),
            Stored::OnDisk(slot) => (ON_DISK, slot.0),
            Stored::CompressedOnDisk(slot, index) => (COMPRESSED_ON_DISK, slot.0 << INDEX_BITS | u32::from(index)),
            Stored::InFile => (IN_FILE, 0),
        };
        kind << KIND_SHIFT
            | u64::from(self.age.0 & AGE_MASK) << AGE_SHIFT
            | u64::from(payload) << PAYLOAD_SHIFT
            | (u64::from(self.count) & COUNT_MASK) >> 1 << COUNT_SHIFT
    }

    /// Returns what the value of a page table entry says; `None` when it is empty or a mapping.
    pub(crate) fn decode(value: u64) -> Option<Self> {
        if value & MAPPING_MASK != 0 {
            return None;
        }
        let payload = u32::try_from(value >> PAYLOAD_SHIFT & PAYLOAD_MASK).ok()?;
        let stored = match value >> KIND_SHIFT & KIND_MASK {
            FILLED => Stored::Filled(payload),
            COMPRESSED => Stored::Compressed(Handle::from_bits(payload)),
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

    /// Returns the number of evictions since this one, where `now` is the eviction count.
    pub(crate) fn distance(self, now: u32) -> u64 {
        u64::from(now).wrapping_sub(u64::from(self.count)) & COUNT_MASK
    }
}

#[cfg(test)]
mod tests {
    use super::{AGE_MASK, Age, Handle, SlotNumber, Stored, SwapEntry};
    use proptest::{prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn entries_survive_a_round_trip(payload: u32, age in 0..=AGE_MASK, count in 0_u32..1 << 19, kind in 0..5) {
            let slot = SlotNumber(payload >> 8);
            let stored = match kind {
                0 => Stored::Filled(payload),
                1 => Stored::Compressed(Handle::from_bits(payload)),
                2 => Stored::OnDisk(slot),
                3 => Stored::CompressedOnDisk(slot, u8::try_from(payload % 16).unwrap()),
                _ => Stored::InFile,
            };
            let entry = SwapEntry { stored, age: Age(age), count: 2 * count };
            prop_assert_eq!(SwapEntry::decode(entry.encode()), Some(entry));
        }
    }

    #[test]
    fn empty_and_mapped_entries_are_not_swap_entries() {
        assert_eq!(SwapEntry::decode(0), None);
        assert_eq!(SwapEntry::decode(0x1234_5007), None);
        assert_eq!(SwapEntry::decode(0x1234_5006), None, "a revoked mapping");
    }

    #[test]
    fn distances_survive_a_wrap_of_the_counter() {
        let entry = SwapEntry { stored: Stored::Filled(0), age: Age(0), count: (1 << 20) - 2 };
        assert_eq!(entry.distance(4), 6);
    }
}
