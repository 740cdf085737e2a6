//! A guest's disk, as the supervisor hands it to the VMM process.

use std::fs::File;
use std::ops::Range;

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use aerostat_abi::units::FrameCount;
use rustix::fs::{OFlags, fcntl_getfl};
use serde::{Deserialize, Serialize};

/// Bytes of a sector, the unit of a disk's size.
pub const SECTOR_BYTES: u64 = 512;

/// What a guest may do with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskMode {
    /// Read it.
    #[default]
    ReadOnly,
    /// Read it and write it.
    ReadWrite,
}

/// Which of a guest's disks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRole {
    /// The disk with the guest's data.
    Data,
    /// The disk for what its memory does not hold.
    Swap,
}

/// Faults to be injected, to test how a guest handles them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFaults {
    /// Sectors that can't be read. A transfer that meets one fails there; what comes before it is
    /// done.
    pub read_errors: Vec<Sectors>,
    /// Sectors that can't be written.
    pub write_errors: Vec<Sectors>,
    /// The host's disk is full after so many bytes were written.
    pub full_after_bytes: Option<u64>,
}

/// Sectors in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sectors {
    /// The first sector.
    pub first: u64,
    /// The number of sectors.
    pub count: u64,
}

impl Sectors {
    /// Returns the bytes of the disk that they cover.
    #[must_use]
    pub fn bytes(self) -> Range<u64> {
        let end = self.first.saturating_add(self.count);
        self.first.saturating_mul(SECTOR_BYTES)..end.saturating_mul(SECTOR_BYTES)
    }
}

impl DiskRole {
    /// Returns the identity that the disk reports to the guest.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Data => DATA_DISK_ID,
            Self::Swap => SWAP_DISK_ID,
        }
    }
}

/// A disk ready to be handed to a VMM process.
#[derive(Debug)]
pub struct OpenDisk {
    /// Which disk it is.
    pub role: DiskRole,
    /// What the guest may do with it.
    pub mode: DiskMode,
    /// For tests.
    pub faults: DiskFaults,
    /// Its contents.
    pub file: File,
}

impl OpenDisk {
    /// Returns the memory that the file may use in the host's page cache and that the guest counts
    /// as swapped out.
    #[must_use]
    pub fn cached_swap(&self) -> FrameCount {
        let is_direct = fcntl_getfl(&self.file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        if self.role != DiskRole::Swap || is_direct {
            return FrameCount::ZERO;
        }
        FrameCount::from_bytes_ceil(self.file.metadata().map_or(0, |metadata| metadata.len()))
    }
}
