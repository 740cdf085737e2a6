//! What a disk offers, and its configuration space (virtio 1.2, 5.2.3 and 5.2.4).

use super::request::{MOST_BYTES, MOST_RANGE_SECTORS, MOST_RANGES};
use crate::virtio::device::Identity;
use aerostat_link::disk::{DiskMode, SECTOR_BYTES};

const DEVICE_ID: u32 = 2;

/// Descriptors of its one queue.
const QUEUE_SIZES: &[u16] = &[256];
/// Parts of a request's data, each its own descriptor. Two more are for the header and the status.
const MOST_DATA_PARTS: u32 = 126;
/// Descriptors of one request.
pub(crate) const MOST_PARTS: usize = MOST_DATA_PARTS as usize + 2;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEG_MAX: u64 = 1 << 2;
const FEATURE_RO: u64 = 1 << 5;
const FEATURE_BLK_SIZE: u64 = 1 << 6;
/// The driver may ask for what it has written to be made durable.
pub(crate) const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;

/// Bytes of the configuration space, up to the fields for discarding.
pub(crate) const CONFIG_BYTES: usize = 48;
/// The host's filesystem makes holes of whole blocks.
const DISCARD_ALIGNMENT_SECTORS: u32 = 8;

/// What the registers say about a disk.
pub(crate) fn identity(mode: DiskMode) -> Identity {
    let always = FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH;
    let features = always
        | match mode {
            DiskMode::ReadOnly => FEATURE_RO,
            DiskMode::ReadWrite => FEATURE_DISCARD,
        };
    Identity { device_id: DEVICE_ID, features, queue_sizes: QUEUE_SIZES }
}

/// Returns the configuration space of a disk of `sectors` sectors.
pub(crate) fn config_space(sectors: u64) -> [u8; CONFIG_BYTES] {
    // A driver that keeps to both limits never exceeds what one request may carry.
    let size_max = (u32::try_from(MOST_BYTES).unwrap_or(u32::MAX) / MOST_DATA_PARTS) & !0xfff;
    let block = u32::try_from(SECTOR_BYTES).unwrap_or(u32::MAX);
    let mut space = [0; CONFIG_BYTES];
    let mut put = |offset: usize, field: &[u8]| space[offset..offset + field.len()].copy_from_slice(field);
    put(0, &sectors.to_le_bytes());
    put(8, &size_max.to_le_bytes());
    put(12, &MOST_DATA_PARTS.to_le_bytes());
    put(20, &block.to_le_bytes());
    put(36, &MOST_RANGE_SECTORS.to_le_bytes());
    put(40, &MOST_RANGES.to_le_bytes());
    put(44, &DISCARD_ALIGNMENT_SECTORS.to_le_bytes());
    space
}

#[cfg(test)]
mod tests {
    use super::{MOST_BYTES, MOST_DATA_PARTS, config_space, identity};
    use aerostat_link::disk::DiskMode;

    #[test]
    fn the_limits_fit_one_request() {
        let space = config_space(0x1234);
        let word = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(12), word(20)), (0x1234, 0, MOST_DATA_PARTS, 512));
        assert_eq!(word(8), 260 << 10);
        assert!(u64::from(word(8)) * u64::from(MOST_DATA_PARTS) <= MOST_BYTES);
    }

    #[test]
    fn only_what_can_be_written_can_be_discarded() {
        assert_eq!(identity(DiskMode::ReadOnly).features & (1 << 13 | 1 << 5), 1 << 5);
        assert_eq!(identity(DiskMode::ReadWrite).features & (1 << 13 | 1 << 5), 1 << 13);
    }
}
