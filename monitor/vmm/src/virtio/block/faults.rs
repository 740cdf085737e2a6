//! Faults that a test asks for: which bytes of a transfer still succeed, and how the rest ends.
//! Pure.

use std::io;
use std::ops::Range;

use crate::virtio::memory::Direction;
use aerostat_link::disk::DiskFaults;

/// The faults of one disk, and how far they have progressed.
#[derive(Debug)]
pub(crate) struct FaultPlan {
    faults: DiskFaults,
    written: u64,
}

/// What the faults let a transfer do.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// How many of the first bytes succeed,
    pub(crate) bytes: u64,
    /// and how the transfer ends after them.
    pub(crate) end: io::Result<()>,
}

impl FaultPlan {
    pub(crate) fn new(faults: DiskFaults) -> Self {
        Self { faults, written: 0 }
    }

    /// Returns what a transfer of `bytes` bytes at `offset` may do. Bytes of a write that are
    /// admitted count as written.
    pub(crate) fn admit(&mut self, direction: Direction, offset: u64, bytes: u64) -> Admitted {
        let transfer = offset..offset.saturating_add(bytes);
        let bad = match direction {
            Direction::Read => &self.faults.read_errors,
            Direction::Write => &self.faults.write_errors,
        };
        let mut admitted = match bad.iter().filter_map(|sectors| first_common(&sectors.bytes(), &transfer)).min() {
            None => Admitted { bytes, end: Ok(()) },
            Some(first) => {
                let error = io::Error::from(rustix::io::Errno::IO);
                Admitted { bytes: first - transfer.start, end: Err(error) }
            }
        };
        if direction == Direction::Write {
            if let Some(capacity) = self.faults.full_after_bytes {
                let room = capacity.saturating_sub(self.written);
                if room < admitted.bytes {
                    admitted = Admitted { bytes: room, end: Err(io::ErrorKind::StorageFull.into()) };
                }
            }
            self.written = self.written.saturating_add(admitted.bytes);
        }
        admitted
    }
}

/// Returns the first byte that lies in both ranges.
fn first_common(one: &Range<u64>, other: &Range<u64>) -> Option<u64> {
    let start = one.start.max(other.start);
    (start < one.end.min(other.end)).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::FaultPlan;
    use crate::virtio::memory::Direction::{Read, Write};
    use aerostat_link::disk::{DiskFaults, Sectors};
    use std::io::ErrorKind;

    fn admit(plan: &mut FaultPlan, direction: super::Direction, offset: u64, bytes: u64) -> (u64, Option<ErrorKind>) {
        let admitted = plan.admit(direction, offset, bytes);
        (admitted.bytes, admitted.end.err().map(|error| error.kind()))
    }

    #[test]
    fn without_faults_all_transfers_succeed() {
        let mut plan = FaultPlan::new(DiskFaults::default());
        assert_eq!(admit(&mut plan, Read, 0, u64::MAX), (u64::MAX, None));
        assert_eq!(admit(&mut plan, Write, u64::MAX, 4096), (4096, None));
    }

    #[test]
    fn bad_sectors_end_a_transfer_in_its_middle() {
        let mut plan = FaultPlan::new(DiskFaults {
            read_errors: vec![Sectors { first: 20, count: 1 }, Sectors { first: 10, count: 2 }],
            write_errors: vec![Sectors { first: 0, count: 1 }],
            ..DiskFaults::default()
        });
        let io = std::io::Error::from(rustix::io::Errno::IO).kind();
        assert_eq!(admit(&mut plan, Read, 0, 10 * 512), (10 * 512, None));
        assert_eq!(admit(&mut plan, Read, 8 * 512, 8 * 512), (2 * 512, Some(io)));
        assert_eq!(admit(&mut plan, Read, 11 * 512, 512), (0, Some(io)));
        assert_eq!(admit(&mut plan, Read, 12 * 512, 100 * 512), (8 * 512, Some(io)));
        assert_eq!(admit(&mut plan, Write, 10 * 512, 512), (512, None));
        assert_eq!(admit(&mut plan, Write, 0, 512), (0, Some(io)));
    }

    #[test]
    fn a_short_disk_fills_up() {
        let mut plan = FaultPlan::new(DiskFaults { full_after_bytes: Some(5000), ..DiskFaults::default() });
        assert_eq!(admit(&mut plan, Write, 0, 4096), (4096, None));
        assert_eq!(admit(&mut plan, Read, 0, 4096), (4096, None));
        assert_eq!(admit(&mut plan, Write, 0, 4096), (904, Some(ErrorKind::StorageFull)));
        assert_eq!(admit(&mut plan, Write, 0, 1), (0, Some(ErrorKind::StorageFull)));
    }
}
