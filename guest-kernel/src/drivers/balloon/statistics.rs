//! The statistics as a balloon device reads them (virtio 1.2, 5.5.6.3): a tag and a value each.
//! Pure.
//!
//! A tag that this kernel can't answer is left out: the host takes a value that it does not get for
//! unknown, and a zero for a fact. Those of huge pages that are set aside at boot (8 and 9) and of
//! processes that were killed for lack of memory (10) are, as there are no such things.

use aerostat_abi::statistics::Statistics;

/// Bytes of a tag and its value.
const ENTRY_BYTES: usize = 10;
/// Statistics that are reported.
const ENTRIES: usize = 13;
/// Bytes of all of them.
const BYTES: usize = ENTRIES * ENTRY_BYTES;

/// Returns what the device reads.
pub(super) fn encode(statistics: &Statistics) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, (tag, value)) in bytes.as_chunks_mut::<ENTRY_BYTES>().0.iter_mut().zip(entries(statistics)) {
        let (tag_bytes, value_bytes) = place.split_at_mut(size_of::<u16>());
        tag_bytes.copy_from_slice(&tag.to_le_bytes());
        value_bytes.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Returns tags and values. As in Linux, the total is what the guest has: memory in the balloon is
/// not part of it.
fn entries(statistics: &Statistics) -> [(u16, u64); ENTRIES] {
    [
        (0, statistics.swap_in_bytes),
        (1, statistics.swap_out_bytes),
        (2, statistics.major_faults),
        (3, statistics.minor_faults),
        (4, statistics.free_memory_bytes),
        (5, statistics.total_memory_bytes.saturating_sub(statistics.balloon_bytes)),
        (6, statistics.available_memory_bytes),
        (7, statistics.disk_caches_bytes),
        (11, statistics.alloc_stalls),
        (12, statistics.async_scan_bytes),
        (13, statistics.direct_scan_bytes),
        (14, statistics.async_reclaim_bytes),
        (15, statistics.direct_reclaim_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::{ENTRIES, ENTRY_BYTES, encode};
    use aerostat_abi::statistics::Statistics;

    #[test]
    fn each_tag_has_its_value_and_none_comes_twice() {
        let statistics = Statistics {
            total_memory_bytes: 1 << 30,
            balloon_bytes: 1 << 20,
            free_memory_bytes: 0x0102_0304_0506_0708,
            major_faults: 7,
            ..Statistics::default()
        };
        let bytes = encode(&statistics);
        let decoded: Vec<(u16, u64)> = bytes
            .chunks(ENTRY_BYTES)
            .map(|entry| (u16::from_le_bytes([entry[0], entry[1]]), u64::from_le_bytes(entry[2..].try_into().unwrap())))
            .collect();
        assert_eq!(decoded.len(), ENTRIES);
        assert!(decoded.is_sorted_by(|one, other| one.0 < other.0), "{decoded:?}");
        for expected in [(2, 7), (4, 0x0102_0304_0506_0708), (5, (1 << 30) - (1 << 20))] {
            assert!(decoded.contains(&expected), "{expected:?} in {decoded:?}");
        }
        assert!(decoded.iter().all(|(tag, _)| ![8, 9, 10].contains(tag)), "these can't be answered");
    }
}
