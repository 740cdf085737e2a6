//! Disks of a guest: what they are, and the host files behind them.
//!
//! The supervisor opens the files and hands them to the VMM process, which can reach no others. A
//! file that a guest may write is locked for that guest alone, one that guests read is locked for
//! readers; the lock lasts until the last process that has the file is gone. The file behind a swap
//! disk has no name: it is gone with the guest, however that ends.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use aerostat_abi::units::FrameCount;
use rustix::fs::{FlockOperation, FsWord, OFlags, fcntl_getfl, fcntl_setfl, flock, fstatfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::size::frames;

pub use aerostat_link::disk::{DiskFaults, DiskMode, DiskRole, OpenDisk, SECTOR_BYTES, Sectors};

/// Where swap files are made unless `TMPDIR` names another directory. Not `/tmp`, which is often in
/// memory.
const SWAP_DIRECTORY: &str = "/var/tmp";

/// File systems whose files are memory: tmpfs, ramfs, hugetlbfs (statfs(2)).
const IN_MEMORY: [FsWord; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// The disks of one guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    /// The disk with the guest's data.
    pub data: Option<DataDisk>,
    /// The disk for what its memory does not hold.
    pub swap: Option<SwapDisk>,
}

/// A disk whose contents are a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDisk {
    /// The file.
    pub path: PathBuf,
    /// What the guest may do with it.
    pub mode: DiskMode,
    /// For tests.
    pub faults: DiskFaults,
}

/// An empty disk that is removed with its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapDisk {
    /// Its size. It uses only as much of the host's disk as was written to it.
    #[serde(with = "frames")]
    pub size: FrameCount,
    /// For tests.
    pub faults: DiskFaults,
}

/// The file that the host pages a guest to. It has the size of the machine's memory, and uses only
/// as much of the host's disk as was written to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSwap {
    /// For tests.
    pub faults: DiskFaults,
}

/// Why a disk can't be used: a sentence about it, without the guest's name.
#[derive(Debug, Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("the disk {} does not exist; make it or correct the path", .0.display())]
    Missing(PathBuf),
    /// It is not a regular file: a directory or a device.
    #[error("the disk {} is not a file; name a disk image", .0.display())]
    NotFile(PathBuf),
    /// It may not be written, or not be read.
    #[error("the disk {} may not be {}; change its permissions{}", path.display(), what_may_not_be(*mode), or_mode(*mode))]
    NotPermitted {
        /// The file.
        path: PathBuf,
        /// What was tried.
        mode: DiskMode,
    },
    /// The file is empty.
    #[error("the disk {} is empty; a disk has at least one sector of {SECTOR_BYTES} bytes", .0.display())]
    Empty(PathBuf),
    /// The size is not a whole number of sectors.
    #[error("the disk {} has {bytes} bytes, not a multiple of {SECTOR_BYTES}; pad it to whole sectors", path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Another guest uses it.
    #[error("the disk {} is in use by another guest, and one of the two writes to it; give each a copy", .0.display())]
    InUse(PathBuf),
    /// The swap file would lie in memory.
    #[error("swap files can't be in {}, which is a file system in memory; set TMPDIR to a directory on a disk", .0.display())]
    InMemory(PathBuf),
    /// Anything else.
    #[error("the disk {} can't be opened: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The swap file would use the host's page cache.
    #[error("files in {} can't bypass the host's page cache; set TMPDIR to a directory on a disk", .0.display())]
    NoDirectIo(PathBuf),
    /// The swap file can't be made.
    #[error("no file for {size} of swap can be made in {}: {source}; set TMPDIR to another directory", directory.display())]
    Swap {
        /// How large.
        size: FrameCount,
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Disks {
    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.data.is_some()) + usize::from(self.swap.is_some())
    }

    /// The files of all disks, in the order in which the guest finds the devices. They are locked
    /// while any of them is open.
    pub(crate) fn open(&self) -> Result<Vec<OpenDisk>, DiskError> {
        let mut disks = Vec::new();
        if let Some(DataDisk { path, mode, faults }) = &self.data {
            let file = open_image(path, *mode)?;
            disks.push(OpenDisk { role: DiskRole::Data, mode: *mode, faults: faults.clone(), file });
        }
        if let Some(SwapDisk { size, faults }) = &self.swap {
            let file = make_swap(&swap_directory(), *size)?;
            disks.push(OpenDisk { role: DiskRole::Swap, mode: DiskMode::ReadWrite, faults: faults.clone(), file });
        }
        Ok(disks)
    }
}

fn open_image(path: &Path, mode: DiskMode) -> Result<File, DiskError> {
    let named = || path.to_owned();
    let unusable = |source| DiskError::Unusable { path: named(), source };
    // Checked first: opening something other than a file may wait, or have side effects.
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DiskError::Missing(named()),
        _ => unusable(error),
    })?;
    if !found.is_file() {
        return Err(DiskError::NotFile(named()));
    }
    let opened = OpenOptions::new().read(true).write(mode == DiskMode::ReadWrite).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DiskError::NotPermitted { path: named(), mode }
        }
        _ => unusable(error),
    })?;
    let bytes = file.metadata().map_err(unusable)?.len();
    if bytes == 0 {
        return Err(DiskError::Empty(named()));
    }
    if !bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(DiskError::NotWhole { path: named(), bytes });
    }
    let operation = match mode {
        DiskMode::ReadOnly => FlockOperation::NonBlockingLockShared,
        DiskMode::ReadWrite => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(file),
        Err(Errno::AGAIN) => Err(DiskError::InUse(named())),
        // Some network filesystems have no locks; there the user has to prevent sharing.
        Err(Errno::NOTSUP | Errno::NOLCK | Errno::NOSYS) => Ok(file),
        Err(error) => Err(unusable(error.into())),
    }
}

/// Returns where swap files are made.
pub(crate) fn swap_directory() -> PathBuf {
    env::var_os("TMPDIR").map_or_else(|| SWAP_DIRECTORY.into(), PathBuf::from)
}

/// Makes a file that a machine of this memory can be paged to. Other than a swap disk, it has to
/// bypass the page cache: paging would free nothing otherwise.
pub(crate) fn make_host_swap(memory: FrameCount) -> Result<File, DiskError> {
    let directory = swap_directory();
    let file = make_swap(&directory, memory)?;
    let is_direct = fcntl_getfl(&file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
    if is_direct { Ok(file) } else { Err(DiskError::NoDirectIo(directory)) }
}

/// Makes a file without a name, and without pages in the host's page cache where the file system
/// supports that: what a guest has swapped out must not stay in the host's memory.
fn make_swap(directory: &Path, size: FrameCount) -> Result<File, DiskError> {
    let failed = |source| DiskError::Swap { size, directory: directory.to_owned(), source };
    let file = tempfile::tempfile_in(directory).map_err(failed)?;
    let kind = fstatfs(&file).map_err(|error| failed(error.into()))?.f_type;
    if IN_MEMORY.contains(&kind) {
        return Err(DiskError::InMemory(directory.to_owned()));
    }
    file.set_len(size.bytes()).map_err(failed)?;
    let flags = fcntl_getfl(&file).map_err(|error| failed(error.into()))?;
    // Refused by file systems that have no direct I/O; then the page cache is charged
    // (`OpenDisk::cached_swap`).
    let _ = fcntl_setfl(&file, flags | OFlags::DIRECT);
    Ok(file)
}

const fn what_may_not_be(mode: DiskMode) -> &'static str {
    match mode {
        DiskMode::ReadOnly => "read",
        DiskMode::ReadWrite => "read and written",
    }
}

const fn or_mode(mode: DiskMode) -> &'static str {
    match mode {
        DiskMode::ReadOnly => "",
        DiskMode::ReadWrite => " or make the disk read-only",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        DataDisk, DiskError, DiskFaults, DiskMode, DiskRole, Disks, IN_MEMORY, OFlags, SwapDisk, fcntl_getfl,
        make_host_swap, make_swap,
    };
    use aerostat_abi::units::FrameCount;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn data(path: &Path, mode: DiskMode) -> Disks {
        Disks { data: Some(DataDisk { path: path.to_owned(), mode, faults: DiskFaults::default() }), swap: None }
    }

    #[test]
    fn invalid_disks_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let refused = || data(&path, DiskMode::ReadOnly).open().map(drop).unwrap_err();
        assert!(matches!(refused(), DiskError::Missing(_)));
        fs::write(&path, "").unwrap();
        assert!(matches!(refused(), DiskError::Empty(_)));
        fs::write(&path, [0; 513]).unwrap();
        assert!(matches!(refused(), DiskError::NotWhole { bytes: 513, .. }));
        fs::write(&path, [0; 1024]).unwrap();
        data(&path, DiskMode::ReadOnly).open().map(drop).unwrap();
        assert!(matches!(
            data(directory.path(), DiskMode::ReadOnly).open().map(drop).unwrap_err(),
            DiskError::NotFile(_)
        ));
        let device = data(Path::new("/dev/null"), DiskMode::ReadOnly);
        assert!(matches!(device.open().map(drop).unwrap_err(), DiskError::NotFile(_)));
    }

    #[test]
    fn a_writer_has_the_disk_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, [0; 1024]).unwrap();
        let (readers, writer) = (data(&path, DiskMode::ReadOnly), data(&path, DiskMode::ReadWrite));
        let reading = (readers.open().unwrap(), readers.open().unwrap());
        assert!(matches!(writer.open().map(drop).unwrap_err(), DiskError::InUse(_)));
        drop(reading);
        let writing = writer.open().unwrap();
        assert!(matches!(readers.open().map(drop).unwrap_err(), DiskError::InUse(_)));
        drop(writing);
        readers.open().map(drop).unwrap();
    }

    #[test]
    fn swap_files_in_memory_are_refused() {
        // Where there is no such file system there is nothing to test.
        let memory = Path::new("/dev/shm");
        if rustix::fs::statfs(memory).is_ok_and(|found| found.f_type == IN_MEMORY[0]) {
            let error = make_swap(memory, FrameCount::from_mib(1)).unwrap_err();
            assert!(matches!(error, DiskError::InMemory(_)), "{error}");
            assert!(error.to_string().contains("/dev/shm, which is a file system in memory; set TMPDIR"), "{error}");
        }
    }

    #[test]
    fn a_host_swap_file_bypasses_the_page_cache() {
        let size = FrameCount::from_mib(64);
        match make_host_swap(size) {
            Ok(file) => {
                let metadata = file.metadata().unwrap();
                assert_eq!((metadata.len(), metadata.blocks(), metadata.nlink()), (size.bytes(), 0, 0));
                assert!(fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
            }
            Err(error) => assert!(matches!(error, DiskError::NoDirectIo(_) | DiskError::InMemory(_)), "{error}"),
        }
    }

    #[test]
    fn swap_that_is_cached_is_charged() {
        let disks = Disks { data: None, swap: Some(SwapDisk { size: FrameCount(512), faults: DiskFaults::default() }) };
        let [disk] = &disks.open().unwrap()[..] else { panic!("one disk") };
        let flags = fcntl_getfl(&disk.file).unwrap();
        let charged = if flags.contains(OFlags::DIRECT) { FrameCount::ZERO } else { FrameCount(512) };
        assert_eq!(disk.cached_swap(), charged);
        rustix::fs::fcntl_setfl(&disk.file, flags - OFlags::DIRECT).unwrap();
        assert_eq!(disk.cached_swap(), FrameCount(512));
    }

    #[test]
    fn a_swap_disk_has_a_size_and_no_name() {
        let size = FrameCount::from_mib(1 << 10);
        let disks = Disks { data: None, swap: Some(SwapDisk { size, faults: DiskFaults::default() }) };
        let [disk] = &disks.open().unwrap()[..] else { panic!("one disk") };
        let metadata = disk.file.metadata().unwrap();
        assert_eq!((disk.role, disk.mode), (DiskRole::Swap, DiskMode::ReadWrite));
        assert_eq!((metadata.len(), metadata.blocks(), metadata.nlink()), (1 << 30, 0, 0));
        let endless = SwapDisk { size: FrameCount(u64::MAX >> 12), faults: DiskFaults::default() };
        let error = Disks { data: None, swap: Some(endless) }.open().map(drop).unwrap_err();
        assert!(matches!(error, DiskError::Swap { .. }), "{error}");
    }
}
