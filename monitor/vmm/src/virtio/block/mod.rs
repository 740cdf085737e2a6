//! The block device (virtio 1.2, 5.2): a file that a guest sees as a disk.
//!
//! | module    | what                                                                         |
//! |-----------|------------------------------------------------------------------------------|
//! | `request` | what a driver may ask for: pure                                              |
//! | `faults`  | faults that a test asks for: pure                                            |
//! | `config`  | features and configuration space                                             |
//! | this one  | carries requests out, on the worker's thread                                 |

mod config;
mod faults;
mod request;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;

use aerostat_link::disk::{OpenDisk, SECTOR_BYTES};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fdatasync};
use rustix::io::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use self::config::{CONFIG_BYTES, FEATURE_FLUSH, MOST_PARTS, config_space, identity};
pub(crate) use self::faults::FaultPlan;
use self::request::{Command, DataBytes, HEADER_BYTES, ID_BYTES, Limits, RANGE_BYTES, Refusal};
use super::chain::{Chain, Malformed};
use super::device::{Device, Identity, read_bytes};
use super::memory::{Buffers, Direction};
use super::queue::{Broken, Request, Requests, Served};
use crate::lock::lock;
use crate::transfers::Transfers;

/// The status byte of a request that was carried out.
const OK: u8 = 0;

/// A disk and the file behind it.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    /// The same file through the page cache, where `file` bypasses it: for buffers whose alignment
    /// direct I/O can't use.
    cached: Option<File>,
    name: String,
    limits: Limits,
    config: [u8; CONFIG_BYTES],
    id: [u8; ID_BYTES],
    /// Locked for a moment at the start of a transfer.
    faults: Mutex<FaultPlan>,
    /// Held during a transfer, which may go on in the kernel while pages move.
    transfers: Transfers,
}

/// Whether a write may be reported before it is on the host's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// It may: the driver flushes.
    WriteBack,
    /// It may not: the driver does not flush.
    WriteThrough,
}

impl Disk {
    /// Creates the disk in this file, with the size that the file has now. `cached` is the same
    /// file as [`reopen_cached`] returns it.
    pub(crate) fn new(disk: OpenDisk, cached: Option<File>, transfers: Transfers) -> io::Result<Self> {
        let sectors = disk.file.metadata()?.len() / SECTOR_BYTES;
        let mut id = [0; ID_BYTES];
        for (place, byte) in id.iter_mut().zip(disk.role.id().bytes()) {
            *place = byte;
        }
        let limits = Limits { sectors, mode: disk.mode };
        Ok(Self {
            file: disk.file,
            cached,
            name: format!("disk {}", disk.role.id()),
            limits,
            config: config_space(sectors),
            id,
            faults: Mutex::new(FaultPlan::new(disk.faults)),
            transfers,
        })
    }

    /// Carries out the request in `chain` and writes its status byte.
    fn carry_out(&self, memory: &GuestMemoryMmap, chain: Chain, cache: Cache) -> Result<Served, Malformed> {
        let Chain { mut readable, mut writable } = chain;
        let mut header = [0; HEADER_BYTES as usize];
        Buffers::new(memory, &readable.take_front(HEADER_BYTES)?)?.copy_to(&mut header);
        let status_address = GuestAddress(writable.take_last()?);
        let data = DataBytes { readable: readable.bytes(), writable: writable.bytes() };
        let (source, target) = (Buffers::new(memory, &readable)?, Buffers::new(memory, &writable)?);

        let (moved, outcome) = match Command::parse(header, data, &self.limits) {
            Ok(Command::Read { offset }) => self.transfer(Direction::Read, &target, offset, data.writable),
            Ok(Command::Write { offset }) => {
                let (moved, outcome) = self.transfer(Direction::Write, &source, offset, data.readable);
                let lasting = if cache == Cache::WriteThrough { self.flush() } else { Ok(()) };
                (moved, outcome.and(lasting))
            }
            Ok(Command::Flush) => (0, self.flush()),
            Ok(Command::Discard) => (0, self.discard(&source, data.readable)),
            Ok(Command::Identify) => (target.copy_from(&self.id) as u64, Ok(())),
            Err(refusal) => (0, Err(refusal)),
        };
        let status = outcome.map_or_else(Refusal::encode, |()| OK);
        memory.write_obj(status, status_address).map_err(|_| Malformed::NotMemory)?;
        // The status byte counts only where nothing before it was left out (2.7.8.2).
        let filled = if data.writable == 0 { 0 } else { moved };
        let written = if filled == data.writable { filled + 1 } else { filled };
        Ok(Served { written: u32::try_from(written).unwrap_or(u32::MAX), moved })
    }

    fn transfer(
        &self,
        direction: Direction,
        buffers: &Buffers<'_>,
        offset: u64,
        bytes: u64,
    ) -> (u64, Result<(), Refusal>) {
        let _in_progress = self.transfers.begin();
        let admitted = lock(&self.faults).admit(direction, offset, bytes);
        let mut transfer = buffers.transfer(direction, &self.file, offset, admitted.bytes);
        // Drivers that swap use whole frames. The file system decides what is aligned enough for
        // direct I/O.
        if let (Some(cached), Err(error)) = (&self.cached, &transfer.1)
            && error.kind() == io::ErrorKind::InvalidInput
        {
            transfer = buffers.transfer(direction, cached, offset, admitted.bytes);
        }
        let (moved, outcome) = transfer;
        (moved, outcome.and(admitted.end).map_err(|_| Refusal::Failed))
    }

    fn flush(&self) -> Result<(), Refusal> {
        fdatasync(&self.file).map_err(|_| Refusal::Failed)
    }

    /// Punches holes into the file. All ranges are checked before the first hole is made.
    fn discard(&self, list: &Buffers<'_>, bytes: u64) -> Result<(), Refusal> {
        let mut ranges = vec![[0; RANGE_BYTES]; usize::try_from(bytes).map_err(|_| Refusal::Failed)? / RANGE_BYTES];
        list.copy_to(ranges.as_flattened_mut());
        let ranges = ranges.into_iter().map(|range| self.limits.discarded(range)).collect::<Result<Vec<_>, _>>()?;
        for range in ranges {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match fallocate(&self.file, flags, range.start, range.end - range.start) {
                // A discard is a hint: a filesystem without holes keeps what it has.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(_) => return Err(Refusal::Failed),
            }
        }
        Ok(())
    }
}

impl Device for Disk {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> Identity {
        identity(self.limits.mode)
    }

    fn read_config(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
        read_bytes(&self.config, offset, bytes)
    }

    fn serve(&self, requests: &mut Requests<'_>) -> Result<(), Broken> {
        let cache = if requests.features() & FEATURE_FLUSH == 0 { Cache::WriteThrough } else { Cache::WriteBack };
        while let Some(Request { head, chain }) = requests.next(MOST_PARTS)? {
            let served = self.carry_out(requests.memory(), chain, cache)?;
            requests.finish(head, served)?;
        }
        Ok(())
    }
}

/// Opens a file that uses direct I/O a second time without it; returns `None` for any other file.
pub(crate) fn reopen_cached(file: impl AsFd) -> io::Result<Option<File>> {
    if !fcntl_getfl(&file)?.contains(OFlags::DIRECT) {
        return Ok(None);
    }
    // The file may have no name; this is the kernel's name for it.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    OpenOptions::new().read(true).write(true).open(path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::{Disk, OpenDisk, reopen_cached};
    use crate::layout::MemoryLayout;
    use crate::memory::GuestMemory;
    use crate::transfers::Transfers;
    use crate::virtio::chain::Chain;
    use crate::virtio::memory::{Buffers, DeviceMemory, Direction};
    use aerostat_abi::units::FrameCount;
    use aerostat_link::disk::{DiskFaults, DiskMode, DiskRole};
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::sync::Arc;
    use virtio_queue::desc::split::Descriptor;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn direct_disks_take_buffers_of_any_alignment() {
        let memory = GuestMemory::new(MemoryLayout::new(FrameCount::from_mib(128)).unwrap()).unwrap();
        let memory = DeviceMemory::new(Arc::new(memory)).unwrap();
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.set_len(1 << 20).unwrap();
        if fcntl_setfl(&file, fcntl_getfl(&file).unwrap() | OFlags::DIRECT).is_err() {
            return; // This file system has no direct I/O.
        }
        let open = OpenDisk { role: DiskRole::Swap, mode: DiskMode::ReadWrite, faults: DiskFaults::default(), file };
        let cached = reopen_cached(&open.file).unwrap();
        let disk = Disk::new(open, cached, Transfers::default()).unwrap();
        assert!(reopen_cached(disk.cached.as_ref().unwrap()).unwrap().is_none(), "the second one is not direct");
        let transfer = |direction, address, bytes: u32, offset| {
            let chain = Chain::collect([Descriptor::new(address, bytes, 0, 0)].into_iter(), 1).unwrap();
            let (moved, outcome) =
                disk.transfer(direction, &Buffers::new(&memory, &chain.readable).unwrap(), offset, bytes.into());
            assert_eq!((moved, outcome), (bytes.into(), Ok(())), "{direction:?} {address:#x} {offset}");
        };
        for (number, (address, bytes, offset)) in (1_u8..).zip([
            (0x1000, 8192, 4096),
            (0x1000, 512, 512),
            (0x1004, 512, 8192),
            (0x1001, 1024, 1536),
            (0x1000, 4096, 0),
        ]) {
            let written: Vec<u8> = (0_u32..bytes).map(|place| place.to_le_bytes()[0].wrapping_add(number)).collect();
            memory.write_slice(&written, GuestAddress(address)).unwrap();
            transfer(Direction::Write, address, bytes, offset);
            for target in [0x10_0000, 0x20_0007] {
                transfer(Direction::Read, target, bytes, offset);
                let mut read = vec![0; written.len()];
                memory.read_slice(&mut read, GuestAddress(target)).unwrap();
                assert!(read == written, "{address:#x} {target:#x} {offset}");
            }
        }
    }
}
