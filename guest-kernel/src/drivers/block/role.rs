//! Which disk is which. Pure.
//!
//! A serial number says it for sure. Other monitors do not pass one, so a disk may also be known by
//! what it holds: an archive is data, and a swap area says so in its first page. What no disk says,
//! the order decides, for the disk with the data only: a disk to swap to is overwritten.

use core::fmt;

use aerostat_abi::boot::{DATA_DISK_ID, SWAP_DISK_ID};
use aerostat_abi::units::FRAME_SIZE;

use super::requests::ID_BYTES;

/// Where an archive has its signature, and the signature (POSIX.1, `ustar`).
const ARCHIVE: (usize, &[u8]) = (257, b"ustar");
/// Where a swap area has its signature, and the signature (Linux, `union swap_header`).
const SWAP_AREA: (usize, &[u8]) = (FRAME_SIZE - 10, b"SWAPSPACE2");

/// A disk that the kernel uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskId {
    /// The one with the guest's data.
    Data,
    /// The one to swap to.
    Swap,
}

impl DiskId {
    const ALL: [Self; 2] = [Self::Data, Self::Swap];

    /// Returns the disk's serial number, which is its name, too.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Data => DATA_DISK_ID,
            Self::Swap => SWAP_DISK_ID,
        }
    }
}

/// What says which disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Its serial number.
    Serial(DiskId),
    /// What it holds.
    Contents(DiskId),
    /// Nothing.
    None,
}

impl Evidence {
    /// Returns what a serial number says.
    pub(super) fn of_serial(serial: &[u8; ID_BYTES]) -> Self {
        let name = serial.split(|&byte| byte == 0).next().unwrap_or_default();
        let disk = DiskId::ALL.into_iter().find(|disk| disk.name().as_bytes() == name);
        disk.map_or(Self::None, Self::Serial)
    }

    /// Returns what the first page of a disk says.
    pub(super) fn of_first_page(page: &[u8; FRAME_SIZE]) -> Self {
        let has = |(at, signature): (usize, &[u8])| page[at..].starts_with(signature);
        if has(SWAP_AREA) {
            Self::Contents(DiskId::Swap)
        } else if has(ARCHIVE) {
            Self::Contents(DiskId::Data)
        } else {
            Self::None
        }
    }

    /// Returns the disk that it is by this evidence alone.
    pub(super) fn disk(self) -> Option<DiskId> {
        match self {
            Self::Serial(disk) | Self::Contents(disk) => Some(disk),
            Self::None => None,
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serial(_) => "its serial number",
            Self::Contents(_) => "what it holds",
            Self::None => "its place in the order",
        })
    }
}

/// Returns which of these disks is `wanted`, by its place.
pub(super) fn choose(wanted: DiskId, disks: &[Evidence]) -> Option<usize> {
    let place = |evidence| disks.iter().position(|disk| *disk == evidence);
    let by_order = || if wanted == DiskId::Data { place(Evidence::None) } else { None };
    place(Evidence::Serial(wanted)).or_else(|| place(Evidence::Contents(wanted))).or_else(by_order)
}

#[cfg(test)]
mod tests {
    use aerostat_abi::units::FRAME_SIZE;

    use super::DiskId::{Data, Swap};
    use super::{Evidence, choose};

    #[test]
    fn serial_numbers_count_first_then_contents_then_the_order() {
        let disks = [Evidence::None, Evidence::Contents(Swap), Evidence::Contents(Data)];
        assert_eq!((choose(Data, &disks), choose(Swap, &disks)), (Some(2), Some(1)));
        let disks =
            [Evidence::Contents(Data), Evidence::Serial(Swap), Evidence::Serial(Data), Evidence::Contents(Swap)];
        assert_eq!((choose(Data, &disks), choose(Swap, &disks)), (Some(2), Some(1)));
        let disks = [Evidence::Contents(Swap), Evidence::None, Evidence::None];
        assert_eq!((choose(Data, &disks), choose(Swap, &disks)), (Some(1), Some(0)));
    }

    #[test]
    fn no_disk_is_overwritten_that_does_not_say_so() {
        assert_eq!(choose(Swap, &[Evidence::None, Evidence::None, Evidence::Contents(Data)]), None);
        assert_eq!(choose(Data, &[Evidence::Serial(Swap)]), None);
        assert_eq!(choose(Data, &[]), None);
    }

    #[test]
    fn a_serial_number_or_the_first_page_is_evidence() {
        assert_eq!(Evidence::of_serial(b"data\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), Evidence::Serial(Data));
        assert_eq!(Evidence::of_serial(b"swap\0data\0\0\0\0\0\0\0\0\0\0\0"), Evidence::Serial(Swap));
        assert_eq!(Evidence::of_serial(b"database\0\0\0\0\0\0\0\0\0\0\0\0"), Evidence::None);
        assert_eq!(Evidence::of_serial(b"datadatadatadatadata"), Evidence::None);
        let mut page = [0; FRAME_SIZE];
        assert_eq!(Evidence::of_first_page(&page), Evidence::None);
        page[257..262].copy_from_slice(b"ustar");
        assert_eq!(Evidence::of_first_page(&page), Evidence::Contents(Data));
        page[4086..].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(Evidence::of_first_page(&page), Evidence::Contents(Swap));
    }
}
