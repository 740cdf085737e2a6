//! The requests of one block device (virtio 1.2, 5.2.6): up to [`MAX_REQUESTS`] under way at once,
//! done in whatever order.
//!
//! A request is a chain of buffers: a header, the data, a byte for the status. The data are frames
//! of the caller's; the rest lies in a [`Cell`] of a page that the device reaches. What the device
//! says is checked before it is used: a chain that is not under way, or more bytes than there was
//! room for, are errors of the device and never a panic here.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::fmt;
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;
use virtio_drivers::{BufferDirection, Error, Hal};

use crate::drivers::virtio::hal::KernelHal;
use crate::mm::KernelHeap;

/// Frames that one request may transfer.
pub(crate) const MAX_FRAMES: usize = 64;
/// Requests under way at once.
pub(crate) const MAX_REQUESTS: usize = 16;
/// The number of the one queue.
pub(super) const QUEUE: u16 = 0;
/// Descriptors: a few of the largest requests, or all requests if they are small.
const QUEUE_SIZE: usize = 256;
/// Buffers that the device only reads or only writes, of one request: its data, and the header or
/// the status.
const MAX_BUFFERS: usize = MAX_FRAMES + 1;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
/// What no device writes: the status until there is one.
const STATUS_NONE: u8 = 0xff;

/// Bytes of a sector, the unit of places and sizes on every disk.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Bytes of a disk's identity.
pub(super) const ID_BYTES: usize = 20;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockError {
    /// The disk has failed at it, or there are no such sectors, or they may not be written.
    Failed,
    /// The device does not know such requests.
    Unsupported,
    /// The device has broken the protocol or given up: it is not used any more.
    DeviceBroken,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "the disk could not do it",
            Self::Unsupported => "the disk has no such request",
            Self::DeviceBroken => "the disk is broken and not used any more",
        })
    }
}

/// Sectors in a row, of 512 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sectors {
    pub(crate) first: u64,
    pub(crate) count: u32,
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// Sectors in a row, and the frames that they fill; the last one perhaps in part.
    Transfer { direction: Direction, sectors: Sectors, frames: &'a [FrameNumber] },
    /// What was written so far is to last.
    Flush,
    /// These sectors are not needed any more.
    Discard(Sectors),
    /// Who are you?
    Identify,
}

/// A device that does not keep to the protocol: nothing that it says or does can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A set of requests, a bit for each place.
pub(super) type RequestSet = u16;
const _: () = assert!(RequestSet::BITS as usize == MAX_REQUESTS, "every request has its bit");

/// The requests and their queue.
#[derive(Debug)]
pub(super) struct Requests {
    /// Boxed at once: it has several kibibytes, and the boot stack is small.
    queue: Box<VirtQueue<KernelHal, QUEUE_SIZE>, KernelHeap>,
    cells: Cells,
    slots: Vec<Slot, KernelHeap>,
    /// For one request at a time; kept here, as a page fault that reads from a disk has little room
    /// on its stack.
    buffers: Buffers,
}

/// What of a request the device reaches besides the data.
#[derive(Debug)]
#[repr(C)]
struct Cell {
    kind: u32,
    reserved: u32,
    first_sector: u64,
    /// Data of requests that transfer no frames.
    inline: [u8; 24],
    status: u8,
}

/// The page of cells.
#[derive(Debug)]
struct Cells {
    first: NonNull<Cell>,
}

// SAFETY: the page is nobody else's, and is used through the one value that owns it.
unsafe impl Send for Cells {}

const HEADER_BYTES: usize = 16;
const DISCARD_BYTES: usize = 16;
const _: () = assert!(size_of::<Cell>() * MAX_REQUESTS <= FRAME_SIZE, "all cells fit into a page");
const _: () = assert!(offset_of!(Cell, inline) == HEADER_BYTES, "the header is as the standard has it");

/// A place for a request.
#[derive(Debug)]
struct Slot {
    state: SlotState,
    direction: Direction,
    /// Where the data lie; the first `count` are in use.
    parts: [Part; MAX_FRAMES],
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Free,
    /// In the queue; the token is the number of the chain's first descriptor.
    UnderWay(u16),
    Done(Result<(), BlockError>),
}

/// Bytes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    address: u64,
    bytes: usize,
}

impl Requests {
    /// Gives the device its queue. It raises no interrupts until it is told to.
    ///
    /// # Errors
    /// When there is no memory, or the device has no such queue.
    pub(super) fn new(transport: &mut impl Transport) -> Result<Self, Error> {
        let mut slots = Vec::new_in(KernelHeap);
        slots.try_reserve_exact(MAX_REQUESTS).map_err(|_| Error::DmaError)?;
        for _ in 0..MAX_REQUESTS {
            let parts = [Part { address: 0, bytes: 0 }; MAX_FRAMES];
            slots.push(Slot { state: SlotState::Free, direction: Direction::Read, parts, count: 0 });
        }
        let cells = Cells::new().ok_or(Error::DmaError)?;
        let queue = VirtQueue::new(transport, QUEUE, false, false)?;
        let mut queue = Box::try_new_in(queue, KernelHeap).map_err(|_| Error::DmaError)?;
        queue.set_dev_notify(false);
        Ok(Self { queue, cells, slots, buffers: Buffers::new()? })
    }

    /// Queues a request. `None` when there is no place for it, or no descriptors.
    pub(super) fn submit(&mut self, request: Request<'_>) -> Option<usize> {
        let index = self.free_slot()?;
        self.prepare(index, request);
        if self.slots[index].count + 2 > self.queue.available_desc() {
            return None;
        }
        self.gather(index);
        let (read, written) = self.buffers.both();
        // SAFETY: header, status and inline data are the slot's until it is done; the frames are
        // the caller's, who keeps them alone.
        let token = unsafe { self.queue.add(read, written) }.ok()?;
        self.slots[index].state = SlotState::UnderWay(token);
        Some(index)
    }

    /// Takes a place for a request that is done already, with this result.
    pub(super) fn submit_done(&mut self, result: Result<(), BlockError>) -> Option<usize> {
        let index = self.free_slot()?;
        self.slots[index].state = SlotState::Done(result);
        Some(index)
    }

    /// Looks what the device has done; returns which requests are done now and were not before.
    ///
    /// # Errors
    /// [`Broken`] when the device says what can't be.
    pub(super) fn reap(&mut self) -> Result<RequestSet, Broken> {
        let mut done = 0;
        while let Some(token) = self.queue.peek_used() {
            let state = SlotState::UnderWay(token);
            let index = self.slots.iter().position(|slot| slot.state == state).ok_or(Broken)?;
            self.gather(index);
            let (read, written) = self.buffers.both();
            // SAFETY: these are the buffers that `submit` has added and got this token for.
            let length = unsafe { self.queue.pop_used(token, read, written) }.map_err(|_| Broken)?;
            self.slots[index].state = SlotState::Done(self.result(index, to_usize(length.into())));
            done |= 1 << index;
        }
        Ok(done)
    }

    /// Ends all that is under way with an error; the device has been reset and does not touch the
    /// buffers any more. Returns what was under way.
    pub(super) fn fail_all(&mut self) -> RequestSet {
        let mut failed = 0;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if matches!(slot.state, SlotState::UnderWay(_)) {
                slot.state = SlotState::Done(Err(BlockError::DeviceBroken));
                failed |= 1 << index;
            }
        }
        failed
    }

    /// Whether the device has the request: it is neither done nor redeemed.
    pub(super) fn is_under_way(&self, index: usize) -> bool {
        matches!(self.slots[index].state, SlotState::UnderWay(_))
    }

    /// A request that is under way, if there is one.
    pub(super) fn under_way(&self) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot.state, SlotState::UnderWay(_)))
    }

    /// How the request ended, if it has; its place is free then.
    pub(super) fn take(&mut self, index: usize) -> Option<Result<(), BlockError>> {
        let SlotState::Done(result) = self.slots[index].state else { return None };
        self.slots[index].state = SlotState::Free;
        Some(result)
    }

    /// Whether the device wants to be told of new requests.
    pub(super) fn should_notify(&self) -> bool {
        // The device looks for requests after it has asked to be notified: its wish must not be
        // read before they can be seen.
        fence(Ordering::SeqCst);
        self.queue.should_notify()
    }

    /// Says whether the device should interrupt for requests that are done. Some may be done
    /// already: the caller reaps afterwards.
    pub(super) fn let_interrupt(&mut self, wanted: Interrupts) {
        self.queue.set_dev_notify(wanted == Interrupts::Wanted);
        fence(Ordering::SeqCst);
    }

    /// What the device has answered to [`Request::Identify`].
    pub(super) fn identity(&self, index: usize) -> [u8; ID_BYTES] {
        let mut identity = [0; ID_BYTES];
        identity.copy_from_slice(&self.answer(index).inline[..ID_BYTES]);
        identity
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.state == SlotState::Free)
    }

    /// Writes the header and notes where the data lie.
    fn prepare(&mut self, index: usize, request: Request<'_>) {
        let cell = self.cell(index);
        let mut inline = [0; 24];
        let inline_at = cell.addr().get() as u64 + HEADER_BYTES as u64;
        let slot = &mut self.slots[index];
        slot.count = 0;
        let (kind, first_sector) = match request {
            Request::Transfer { direction, sectors, frames } => {
                assert!(frames.len() <= MAX_FRAMES, "a request transfers at most {MAX_FRAMES} frames");
                slot.direction = direction;
                let mut bytes = to_usize(u64::from(sectors.count) * SECTOR_BYTES);
                for frame in frames {
                    slot.append(Part { address: frame.address(), bytes: bytes.min(FRAME_SIZE) });
                    bytes = bytes.saturating_sub(FRAME_SIZE);
                }
                debug_assert_eq!(bytes, 0, "there are fewer frames than sectors to fill them");
                (if direction == Direction::Read { TYPE_IN } else { TYPE_OUT }, sectors.first)
            }
            Request::Flush => (TYPE_FLUSH, 0),
            Request::Discard(sectors) => {
                slot.direction = Direction::Write;
                slot.append(Part { address: inline_at, bytes: DISCARD_BYTES });
                inline[..8].copy_from_slice(&sectors.first.to_le_bytes());
                inline[8..12].copy_from_slice(&sectors.count.to_le_bytes());
                (TYPE_DISCARD, 0)
            }
            Request::Identify => {
                slot.direction = Direction::Read;
                slot.append(Part { address: inline_at, bytes: ID_BYTES });
                (TYPE_GET_ID, 0)
            }
        };
        // SAFETY: the cell is within the page, aligned, and not the device's while the request is
        // not in the queue.
        unsafe { cell.write_volatile(Cell { kind, reserved: 0, first_sector, inline, status: STATUS_NONE }) };
    }

    /// Notes which buffers a request has.
    fn gather(&mut self, index: usize) {
        let cell = self.cell(index).addr().get() as u64;
        let slot = &self.slots[index];
        let parts = slot.parts[..slot.count].iter();
        let Buffers { read, written } = &mut self.buffers;
        read.clear();
        written.clear();
        read.push(bytes_at(Part { address: cell, bytes: HEADER_BYTES }));
        let data = match slot.direction {
            Direction::Write => &mut *read,
            Direction::Read => &mut *written,
        };
        data.extend(parts.map(|part| bytes_at(*part)));
        written.push(bytes_at(Part { address: cell + offset_of!(Cell, status) as u64, bytes: 1 }));
    }

    /// How a request ended of which the device says that it is done and that so many bytes were
    /// written to memory.
    fn result(&self, index: usize, length: usize) -> Result<(), BlockError> {
        let slot = &self.slots[index];
        let data = slot.parts[..slot.count].iter().map(|part| part.bytes).sum::<usize>();
        let room = 1 + if slot.direction == Direction::Read { data } else { 0 };
        match self.answer(index).status {
            // Data that the device does not vouch for are no data.
            STATUS_OK if slot.direction == Direction::Read && length != room => Err(BlockError::Failed),
            STATUS_OK if length <= room => Ok(()),
            STATUS_UNSUPPORTED => Err(BlockError::Unsupported),
            _ => Err(BlockError::Failed),
        }
    }

    /// A request's cell as the device has left it.
    fn answer(&self, index: usize) -> Cell {
        // SAFETY: the cell is within the page, initialized, and the device has finished with it;
        // any bits are a cell.
        unsafe { self.cell(index).read_volatile() }
    }

    fn cell(&self, index: usize) -> NonNull<Cell> {
        // SAFETY: there are as many cells as slots.
        unsafe { self.cells.first.add(index) }
    }
}

impl Cells {
    fn new() -> Option<Self> {
        let (address, memory) = KernelHal::dma_alloc(1, BufferDirection::Both);
        (address != 0).then(|| Self { first: memory.cast() })
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: the page was allocated in `new`, and the device that knew of it has been reset.
        unsafe { KernelHal::dma_dealloc(0, self.first.cast(), 1) };
    }
}

/// The buffers of one request.
#[derive(Debug)]
struct Buffers {
    /// Read by the device.
    read: Vec<NonNull<[u8]>, KernelHeap>,
    /// Written by the device.
    written: Vec<NonNull<[u8]>, KernelHeap>,
}

// SAFETY: the pointers are followed by nobody but the device.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Room for all that a request can have.
    fn new() -> Result<Self, Error> {
        let mut buffers = Self { read: Vec::new_in(KernelHeap), written: Vec::new_in(KernelHeap) };
        buffers.read.try_reserve_exact(MAX_BUFFERS).map_err(|_| Error::DmaError)?;
        buffers.written.try_reserve_exact(MAX_BUFFERS).map_err(|_| Error::DmaError)?;
        Ok(buffers)
    }

    /// The buffers as the queue takes them; it uses their addresses only.
    fn both(&mut self) -> (&[&[u8]], &mut [&mut [u8]]) {
        let (read, written) = (self.read.as_ptr().cast::<&[u8]>(), self.written.as_mut_ptr().cast::<&mut [u8]>());
        // SAFETY: a reference is laid out like the pointer; the header is mapped, and the data
        // belong to whoever made the request.
        let read = unsafe { core::slice::from_raw_parts(read, self.read.len()) };
        // SAFETY: as above, and no two buffers overlap.
        let written = unsafe { core::slice::from_raw_parts_mut(written, self.written.len()) };
        (read, written)
    }
}

/// Whether a device should interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    Wanted,
    Unwanted,
}

impl Slot {
    /// Adds data, to the last part if they follow it in memory.
    fn append(&mut self, part: Part) {
        if let Some(last) = self.parts[..self.count].last_mut()
            && last.address + last.bytes as u64 == part.address
        {
            last.bytes += part.bytes;
            return;
        }
        self.parts[self.count] = part;
        self.count += 1;
    }
}

/// Memory that a device is about to get or has just given back. A part of a request is mapped at
/// its own address, and belongs to whoever made the request, who doesn't touch it until the request
/// is done.
fn bytes_at(part: Part) -> NonNull<[u8]> {
    let pointer = core::ptr::with_exposed_provenance_mut(to_usize(part.address));
    NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap_or(NonNull::dangling()), part.bytes)
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
