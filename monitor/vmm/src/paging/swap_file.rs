//! The host swap file: a guest's frames that are not in memory, each at the place that it has in
//! the machine's memory. So there are no slots to allocate, what was written together is read
//! together, and the file never exceeds the machine's memory. It has no name and bypasses the page
//! cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use aerostat_abi::units::FRAME_SIZE;
use aerostat_link::disk::DiskFaults;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::lock::lock;
use crate::memory::transfer_all;
use crate::virtio::{Direction, FaultPlan};

/// The file.
#[derive(Debug)]
pub(super) struct SwapFile {
    file: File,
    /// Its size: that of the machine's memory.
    bytes: u64,
    /// Locked for a moment at the start of a transfer.
    faults: Mutex<FaultPlan>,
}

impl SwapFile {
    pub(super) fn new(file: File, faults: DiskFaults) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, faults: Mutex::new(FaultPlan::new(faults)) })
    }

    /// Writes the frames of these indexes from `start` on.
    ///
    /// # Safety
    /// So much memory is mapped there.
    pub(super) unsafe fn write(&self, frames: Range<usize>, start: *const u8) -> io::Result<()> {
        self.transfer(Direction::Write, frames, |bytes, done, offset| {
            // SAFETY: the kernel reads within the memory that the caller names.
            unsafe { libc::pwrite(self.file.as_raw_fd(), start.wrapping_add(done).cast(), bytes, offset) }
        })
    }

    /// Reads the frames of these indexes to `start`.
    ///
    /// # Safety
    /// So much memory is mapped there, and there are no references to it.
    pub(super) unsafe fn read(&self, frames: Range<usize>, start: *mut u8) -> io::Result<()> {
        self.transfer(Direction::Read, frames, |bytes, done, offset| {
            // SAFETY: the kernel writes within the memory that the caller names.
            unsafe { libc::pread(self.file.as_raw_fd(), start.wrapping_add(done).cast(), bytes, offset) }
        })
    }

    /// Gives the file's space back to the host's disk. Nothing in it is needed any more.
    pub(super) fn clear(&self) -> io::Result<()> {
        // The jail lets this thread punch holes, as devices do, and not change the file's size.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, 0, self.bytes) {
            // A file system without holes keeps what it has.
            Ok(()) | Err(Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls `once` for the bytes that are left, what is done, and where they are in the file,
    /// until all are done.
    fn transfer(
        &self,
        direction: Direction,
        frames: Range<usize>,
        once: impl Fn(usize, usize, libc::off_t) -> isize,
    ) -> io::Result<()> {
        let (offset, bytes) = (frames.start * FRAME_SIZE, frames.len() * FRAME_SIZE);
        let admitted = lock(&self.faults).admit(direction, offset as u64, bytes as u64);
        admitted.end?;
        transfer_all(bytes, |done| {
            let at = libc::off_t::try_from(offset + done).map_err(io::Error::other)?;
            Ok(once(bytes - done, done, at))
        })
    }
}
