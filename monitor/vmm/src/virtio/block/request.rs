//! What a driver asks of a disk (virtio 1.2, 5.2.6). Pure: takes bytes and returns a valid request
//! or the reason for a refusal.
//!
//! A chain that can't be a request at all stops the device (`super::super::chain`). A request that
//! asks for something impossible fails alone, as every disk answers it with an error.

use std::ops::Range;

use aerostat_link::disk::{DiskMode, SECTOR_BYTES};

/// Bytes of the header before the data.
pub(super) const HEADER_BYTES: u32 = 16;
/// Bytes of a disk's identity.
pub(super) const ID_BYTES: usize = 20;
/// Bytes of one range in a discard request.
pub(super) const RANGE_BYTES: usize = 16;
/// Ranges in one discard request.
pub(super) const MOST_RANGES: u32 = 32;
/// Sectors in one of them: 1 GiB.
pub(super) const MOST_RANGE_SECTORS: u32 = 1 << 21;
/// Bytes of one request. Bounds how long a reset may have to wait.
pub(super) const MOST_BYTES: u64 = 32 << 20;

/// Command types.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
}

/// What a disk can do, and how large it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) sectors: u64,
    pub(super) mode: DiskMode,
}

/// Returns the bytes of the request's data, without header and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataBytes {
    pub(super) readable: u64,
    pub(super) writable: u64,
}

/// A request that can be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Read from this byte of the disk on into the data.
    Read { offset: u64 },
    /// Write the data from this byte of the disk on.
    Write { offset: u64 },
    /// Make what was written durable.
    Flush,
    /// The data is a list of ranges that are no longer needed.
    Discard,
    /// Return the disk's identity.
    Identify,
}

/// Why a request is not carried out: the status byte that the driver gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It failed or is impossible.
    Failed,
    /// Its type is unknown.
    Unsupported,
}

impl Refusal {
    /// Returns the status byte.
    pub(super) const fn encode(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Unsupported => 2,
        }
    }
}

impl Command {
    /// Parses the request with this header and so much data.
    pub(super) fn parse(
        header: [u8; HEADER_BYTES as usize],
        data: DataBytes,
        limits: &Limits,
    ) -> Result<Self, Refusal> {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let DataBytes { readable, writable } = data;
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            kind::IN if readable == 0 => Ok(Self::Read { offset: limits.offset(sector, writable)? }),
            kind::OUT if writable == 0 => {
                limits.writable()?;
                Ok(Self::Write { offset: limits.offset(sector, readable)? })
            }
            kind::FLUSH if readable == 0 && writable == 0 => Ok(Self::Flush),
            kind::DISCARD if writable == 0 => {
                limits.writable()?;
                let is_list = readable > 0
                    && readable.is_multiple_of(RANGE_BYTES as u64)
                    && readable / RANGE_BYTES as u64 <= u64::from(MOST_RANGES);
                if is_list { Ok(Self::Discard) } else { Err(Refusal::Failed) }
            }
            kind::GET_ID if readable == 0 && writable >= ID_BYTES as u64 => Ok(Self::Identify),
            kind::IN | kind::OUT | kind::FLUSH | kind::DISCARD | kind::GET_ID => Err(Refusal::Failed),
            _ => Err(Refusal::Unsupported),
        }
    }
}

impl Limits {
    /// Parses one range of a discard request; returns its bytes.
    pub(super) fn discarded(&self, range: [u8; RANGE_BYTES]) -> Result<Range<u64>, Refusal> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, flags @ ..] = range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        // The one flag there is belongs to another request (5.2.6.2).
        if u32::from_le_bytes(flags) != 0 {
            return Err(Refusal::Unsupported);
        }
        if count == 0 || count > MOST_RANGE_SECTORS {
            return Err(Refusal::Failed);
        }
        let bytes = u64::from(count) * SECTOR_BYTES;
        let start = self.place(sector, bytes)?;
        Ok(start..start + bytes)
    }

    fn writable(&self) -> Result<(), Refusal> {
        match self.mode {
            DiskMode::ReadWrite => Ok(()),
            DiskMode::ReadOnly => Err(Refusal::Failed),
        }
    }

    /// Returns where the data of a transfer lies on the disk.
    fn offset(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) || bytes > MOST_BYTES {
            return Err(Refusal::Failed);
        }
        self.place(sector, bytes)
    }

    /// Returns the first byte of `bytes` bytes from `sector` on, if the disk has them all.
    fn place(&self, sector: u64, bytes: u64) -> Result<u64, Refusal> {
        let end = sector.checked_add(bytes / SECTOR_BYTES).ok_or(Refusal::Failed)?;
        if end > self.sectors {
            return Err(Refusal::Failed);
        }
        sector.checked_mul(SECTOR_BYTES).ok_or(Refusal::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, DataBytes, Limits, MOST_RANGE_SECTORS, Refusal};
    use aerostat_link::disk::DiskMode;
    use proptest::prelude::{any, proptest};

    const DISK: Limits = Limits { sectors: 100, mode: DiskMode::ReadWrite };

    fn parse(kind: u32, sector: u64, readable: u64, writable: u64, limits: &Limits) -> Result<Command, Refusal> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        Command::parse(header, DataBytes { readable, writable }, limits)
    }

    fn range(sector: u64, count: u32, flags: u32) -> [u8; 16] {
        let words = [sector.to_le_bytes(), ((u64::from(flags) << 32) | u64::from(count)).to_le_bytes()];
        words.concat().try_into().unwrap()
    }

    #[test]
    fn good_requests_are_parsed() {
        assert_eq!(parse(0, 99, 0, 512, &DISK), Ok(Command::Read { offset: 99 * 512 }));
        assert_eq!(parse(1, 0, 100 * 512, 0, &DISK), Ok(Command::Write { offset: 0 }));
        assert_eq!(parse(4, u64::MAX, 0, 0, &DISK), Ok(Command::Flush));
        assert_eq!(parse(8, 0, 0, 20, &DISK), Ok(Command::Identify));
        assert_eq!(parse(11, 0, 32, 0, &DISK), Ok(Command::Discard));
    }

    #[test]
    fn impossible_requests_fail() {
        for (kind, sector, readable, writable) in [
            (0, 100, 0, 512),
            (0, 99, 0, 1024),
            (0, u64::MAX, 0, 512),
            (0, u64::MAX / 512, 0, 1 << 20),
            (0, 0, 0, 0),
            (0, 0, 0, 511),
            (0, 0, 512, 512),
            (0, 0, 0, !511),
            (1, 100, 512, 0),
            (1, 0, 512, 512),
            (4, 0, 1, 0),
            (8, 0, 0, 19),
            (8, 0, 1, 20),
            (11, 0, 0, 0),
            (11, 0, 17, 0),
            (11, 0, 33 * 16, 0),
            (11, 0, 16, 1),
        ] {
            assert_eq!(parse(kind, sector, readable, writable, &DISK), Err(Refusal::Failed), "{kind} {sector}");
        }
        for kind in [2, 3, 5, 9, 10, 12, 13, 14, u32::MAX] {
            assert_eq!(parse(kind, 0, 0, 0, &DISK), Err(Refusal::Unsupported));
        }
        let huge = Limits { sectors: u64::MAX, ..DISK };
        assert_eq!(parse(0, 0, 0, 64 << 20, &huge), Err(Refusal::Failed), "more than one request may carry");
        assert_eq!(parse(0, u64::MAX - 1, 0, 512, &huge), Err(Refusal::Failed));
    }

    #[test]
    fn a_read_only_disk_is_not_changed() {
        let disk = Limits { mode: DiskMode::ReadOnly, ..DISK };
        assert_eq!(parse(1, 0, 512, 0, &disk), Err(Refusal::Failed));
        assert_eq!(parse(11, 0, 16, 0, &disk), Err(Refusal::Failed));
        assert!(parse(0, 0, 0, 512, &disk).is_ok() && parse(4, 0, 0, 0, &disk).is_ok());
    }

    #[test]
    fn discarded_ranges_lie_on_the_disk() {
        assert_eq!(DISK.discarded(range(1, 2, 0)), Ok(512..1536));
        assert_eq!(DISK.discarded(range(0, 100, 0)), Ok(0..51200));
        for (sector, count) in [(0, 0), (100, 1), (0, 101), (u64::MAX, 1), (0, MOST_RANGE_SECTORS + 1)] {
            assert_eq!(DISK.discarded(range(sector, count, 0)), Err(Refusal::Failed));
        }
        assert_eq!(DISK.discarded(range(0, 1, 1)), Err(Refusal::Unsupported));
    }

    proptest! {
        #[test]
        fn what_is_accepted_lies_on_the_disk(
            kind in 0_u32..16,
            sector: u64,
            readable in any::<u64>(),
            writable in any::<u64>(),
            sectors: u64,
        ) {
            let limits = Limits { sectors, mode: DiskMode::ReadWrite };
            match parse(kind, sector, readable, writable, &limits) {
                Ok(Command::Read { offset }) => assert!(offset / 512 + writable / 512 <= sectors),
                Ok(Command::Write { offset }) => assert!(offset / 512 + readable / 512 <= sectors),
                _ => {}
            }
        }
    }
}
