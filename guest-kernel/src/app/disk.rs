//! The disk with the guest's data.
//!
//! A device accesses frames, while an application's pages may be evicted at any time. So data pass
//! through a few *bounce buffers* of the kernel's frames. A long transfer uses several of them at
//! once. Pages of the mapped disk use the same queue: a thread that finds it full waits for a
//! moment, as each request in it ends by itself.
#![allow(unsafe_code, reason = "copies between applications' memory and the kernel's frames")]

use core::fmt;
use core::ops::Range;

use aerostat_abi::threads::Wait;
use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameNumber, to_usize};
use aerostat_reclaim_policy::Name;
use spin::Once;

use crate::drivers::block::{
    self, BlockDevice, BlockError, Direction, DiskId, MAX_FRAMES, MAX_REQUESTS, SECTOR_BYTES, Sectors, Ticket,
};
use crate::mm::{BlockSize, FRAMES, OutOfMemory, Purpose, file};
use crate::sync::{LockRank, SpinLock};
use crate::thread::{self, Event};
use crate::time::Instant;

/// Bounce buffers.
const BUFFERS: usize = 4;
/// Frames of a bounce buffer.
const BUFFER_FRAMES: usize = 16;
/// How long a thread waits when the queue is full: about as long as a request takes.
const FULL_QUEUE_PAUSE_NS: u64 = 100_000;
const BUFFER_BYTES: usize = BUFFER_FRAMES * FRAME_SIZE;
const _: () = assert!(BUFFERS < MAX_REQUESTS && BUFFER_FRAMES <= MAX_FRAMES);

static DISK: Once<Disk> = Once::new();

/// A disk, of sectors of 512 bytes.
#[derive(Debug)]
pub struct Disk {
    device: &'static BlockDevice,
    free: SpinLock<[Option<Buffer>; BUFFERS]>,
    returned: Event,
}

/// Why an operation on a disk failed. Any part of its data may have been transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// Offset or length is not a multiple of 512 bytes.
    Unaligned,
    /// The disk ends before the data do.
    OutOfRange,
    /// The disk may not be written.
    ReadOnly,
    /// The disk has failed.
    Failed,
    /// The device is broken, for good.
    Broken,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unaligned => "offset and length must be multiples of 512 bytes",
            Self::OutOfRange => "the disk ends before the data do",
            Self::ReadOnly => "the disk may not be written",
            Self::Failed => "the disk has failed",
            Self::Broken => "the disk's device is broken",
        })
    }
}

impl core::error::Error for DiskError {}

impl From<BlockError> for DiskError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Failed | BlockError::Unsupported => Self::Failed,
            BlockError::DeviceBroken => Self::Broken,
        }
    }
}

/// Returns the disk with the guest's data, if the machine has one.
#[must_use]
pub fn disk() -> Option<&'static Disk> {
    DISK.get()
}

/// Why the disk can't be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// The machine has no disk with data.
    NoDisk,
    /// The disk may be written: what is mapped must not change while it is read.
    Writable,
    /// There is no memory for its page tables and a few of its pages.
    OutOfMemory,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoDisk => "there is no disk with data",
            Self::Writable => "a disk that may be written can't be mapped",
            Self::OutOfMemory => "there is no memory to map the disk",
        })
    }
}

impl core::error::Error for MapError {}

/// Maps the whole of a read-only disk. Pages are read when they are touched, and dropped when
/// memory is short. A page that the disk can't read ends the guest.
///
/// # Errors
/// [`MapError`].
pub fn map_disk() -> Result<&'static [u8], MapError> {
    let device = block::device(DiskId::Data).ok_or(MapError::NoDisk)?;
    if !device.is_read_only() {
        return Err(MapError::Writable);
    }
    let bytes = device.sectors() * SECTOR_BYTES;
    let policy = Name::from_command_line(super::arguments()).unwrap_or_default();
    let start = file::map(device, bytes, policy).map_err(|OutOfMemory| MapError::OutOfMemory)?;
    let pointer = core::ptr::with_exposed_provenance::<u8>(to_usize(start));
    // SAFETY: the region covers this many bytes, is never unmapped, and is never written to.
    Ok(unsafe { core::slice::from_raw_parts(pointer, to_usize(bytes)) })
}

/// Allocates the buffers of the disk.
pub(super) fn start() {
    let Some(device) = block::device(DiskId::Data) else { return };
    let free = [(); BUFFERS].map(|()| Buffer::allocate());
    if free.iter().any(Option::is_none) {
        log::warn!("disk: there is no memory for its buffers");
        return;
    }
    DISK.call_once(|| Disk {
        device,
        free: SpinLock::new(LockRank::BounceBuffers, free),
        returned: Event::of(Wait::Disk),
    });
}

impl Disk {
    /// Returns the size in bytes, a multiple of 512.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.device.sectors() * SECTOR_BYTES
    }

    /// Returns whether the disk may not be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.device.is_read_only()
    }

    /// Reads from the disk at byte `offset` into `data`, and waits for it.
    ///
    /// # Errors
    /// [`DiskError`]; the contents of `data` are then undefined.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, data.len() as u64)?;
        self.transfer(offset, Data::Into(data))
    }

    /// Writes `data` to the disk at byte `offset`, and waits for it. Only [`Self::flush`] makes the
    /// data survive an end of the host.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.check(offset, data.len() as u64)?;
        self.check_writable()?;
        self.transfer(offset, Data::From(data))
    }

    /// Makes durable what was written before, and waits for it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn flush(&self) -> Result<(), DiskError> {
        self.with_buffer(|| self.device.flush())
    }

    /// Discards `bytes` bytes at `offset`: their contents are then undefined. Does nothing if the
    /// disk can't discard.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn discard(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        self.check(offset, bytes)?;
        self.check_writable()?;
        let most = self.device.max_discard_sectors();
        let (mut first, end) = (offset / SECTOR_BYTES, (offset + bytes) / SECTOR_BYTES);
        while first < end && most > 0 {
            let count = u32::try_from(end - first).unwrap_or(u32::MAX).min(most);
            self.with_buffer(|| self.device.discard(Sectors { first, count }))?;
            first += u64::from(count);
        }
        Ok(())
    }

    fn check(&self, offset: u64, bytes: u64) -> Result<(), DiskError> {
        if !offset.is_multiple_of(SECTOR_BYTES) || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(DiskError::Unaligned);
        }
        let end = offset.checked_add(bytes).ok_or(DiskError::OutOfRange)?;
        if end > self.size() { Err(DiskError::OutOfRange) } else { Ok(()) }
    }

    fn check_writable(&self) -> Result<(), DiskError> {
        if self.is_read_only() { Err(DiskError::ReadOnly) } else { Ok(()) }
    }

    /// Transfers the data in pieces, each through a buffer, with as many under way as there are
    /// free buffers.
    fn transfer(&self, offset: u64, mut data: Data<'_>) -> Result<(), DiskError> {
        let length = data.len();
        let mut pieces = [const { None }; BUFFERS];
        let (mut started, mut finished) = (0, 0);
        let mut at = 0;
        let mut result = Ok(());
        loop {
            while at < length && result.is_ok() {
                // A thread that holds buffers does not wait for another one: two such threads could
                // wait for each other.
                let is_idle = started == finished;
                let buffer = if is_idle { Some(self.take_buffer()) } else { self.try_take_buffer() };
                let Some(buffer) = buffer else { break };
                let range = at..length.min(at + BUFFER_BYTES);
                at = range.end;
                pieces[started % BUFFERS] = Some(self.start_piece(offset, &data, buffer, range));
                started += 1;
            }
            let Some(Piece { buffer, ticket, range }) = pieces[finished % BUFFERS].take() else { return result };
            finished += 1;
            let outcome = self.device.finish(ticket).map_err(DiskError::from);
            if outcome.is_ok() {
                data.copy_from(&buffer, range);
            }
            self.return_buffer(buffer);
            result = result.and(outcome);
        }
    }

    fn start_piece(&self, offset: u64, data: &Data<'_>, buffer: Buffer, range: Range<usize>) -> Piece {
        let direction = data.direction();
        data.copy_to(&buffer, range.clone());
        let count = u32::try_from(range.len() as u64 / SECTOR_BYTES).expect("a buffer has few sectors");
        let sectors = Sectors { first: (offset + range.start as u64) / SECTOR_BYTES, count };
        let frames = &buffer.frames[..range.len().div_ceil(FRAME_SIZE)];
        let ticket = accepted(|| self.device.submit(direction, sectors, frames));
        Piece { buffer, ticket, range }
    }

    /// Carries out a request without data. It holds a buffer, as each thread does that has a
    /// request under way, which bounds the number of requests.
    fn with_buffer(&self, submit: impl FnMut() -> Option<Ticket>) -> Result<(), DiskError> {
        let buffer = self.take_buffer();
        let result = self.device.finish(accepted(submit));
        self.return_buffer(buffer);
        Ok(result?)
    }

    fn take_buffer(&self) -> Buffer {
        loop {
            if let Some(buffer) = self.try_take_buffer() {
                return buffer;
            }
            self.returned.wait(None);
        }
    }

    fn try_take_buffer(&self) -> Option<Buffer> {
        self.free.lock().iter_mut().find_map(Option::take)
    }

    fn return_buffer(&self, buffer: Buffer) {
        if let Some(place) = self.free.lock().iter_mut().find(|place| place.is_none()) {
            *place = Some(buffer);
        }
        self.returned.signal();
    }
}

/// Submits a request, again and again until the queue has room.
fn accepted(mut submit: impl FnMut() -> Option<Ticket>) -> Ticket {
    loop {
        if let Some(ticket) = submit() {
            return ticket;
        }
        thread::sleep_until(Instant::now().after(FULL_QUEUE_PAUSE_NS));
    }
}

/// A part of a transfer that is under way.
struct Piece {
    buffer: Buffer,
    ticket: Ticket,
    /// The bytes of the data that are in it.
    range: Range<usize>,
}

/// An application's data, and the direction of their transfer.
enum Data<'a> {
    /// Read from the disk.
    Into(&'a mut [u8]),
    /// Written to the disk.
    From(&'a [u8]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Into(data) => data.len(),
            Self::From(data) => data.len(),
        }
    }

    fn direction(&self) -> Direction {
        match self {
            Self::Into(_) => Direction::Read,
            Self::From(_) => Direction::Write,
        }
    }

    /// Copies data that are to be written to the buffer.
    fn copy_to(&self, buffer: &Buffer, range: Range<usize>) {
        if let Self::From(data) = self {
            for (piece, frame) in data[range].chunks(FRAME_SIZE).zip(&buffer.frames) {
                // SAFETY: the frame belongs to the buffer, which this thread owns and which is not
                // under way; it is no shorter than the piece.
                unsafe { pointer(*frame).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
            }
        }
    }

    /// Copies data that were read from the buffer.
    fn copy_from(&mut self, buffer: &Buffer, range: Range<usize>) {
        if let Self::Into(data) = self {
            for (piece, frame) in data[range].chunks_mut(FRAME_SIZE).zip(&buffer.frames) {
                // SAFETY: as in `copy_to`.
                unsafe { pointer(*frame).copy_to_nonoverlapping(piece.as_mut_ptr(), piece.len()) };
            }
        }
    }
}

/// Frames that data pass through. They are owned, and never freed.
struct Buffer {
    frames: [FrameNumber; BUFFER_FRAMES],
}

impl Buffer {
    fn allocate() -> Option<Self> {
        let mut frames = [FrameNumber(0); BUFFER_FRAMES];
        for frame in &mut frames {
            *frame = FRAMES.allocate(BlockSize::Frame, Purpose::Kernel)?.into_number();
        }
        Some(Self { frames })
    }
}

/// Returns the address of a frame's memory, which is [`FRAME_BYTES`] long.
fn pointer(frame: FrameNumber) -> *mut u8 {
    const { assert!(FRAME_SIZE as u64 == FRAME_BYTES) };
    core::ptr::with_exposed_provenance_mut(to_usize(frame.address()))
}
