//! The requests of one block device (virtio 1.2, 5.2.6): up to [`MAX_REQUESTS`] under way at once,
//! done in any order.
//!
//! A request is a chain of buffers: a header, the data, a byte for the status. The data are frames
//! of the caller's; the rest is in a [`Cell`] of a page that the device accesses. What the device
//! says is checked before it is used: a chain that is not under way, or more bytes than there was
//! room for, are errors of the device and never cause a panic here.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::sync::atomic::{Ordering, fence};
use core::{fmt, iter};

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};
use allocator_api2::vec::Vec;
use virtio_drivers::Error;
use virtio_drivers::transport::Transport;

use super::queue::Queue;
use super::shared::{Buffers, Cell, Cells, Part};
use crate::mm::KernelHeap;

/// The most frames that one request transfers.
pub(crate) const MAX_FRAMES: usize = 64;
/// The most requests that are under way at once.
pub(crate) const MAX_REQUESTS: usize = 16;
/// The number of the one queue.
pub(super) const QUEUE: u16 = 0;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
/// The status until the device has written one: no device writes this.
const STATUS_NONE: u8 = 0xff;

/// Bytes of a sector, the unit of offsets and sizes on every disk.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Bytes of a disk's identity.
pub(super) const ID_BYTES: usize = 20;
/// Bytes of the range to discard.
const DISCARD_BYTES: usize = 16;

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the disk into memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockError {
    /// The disk has failed, or there are no such sectors, or they may not be written.
    Failed,
    /// The device does not support such requests.
    Unsupported,
    /// The device has broken the protocol or given up, and is not used any more.
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

/// Contiguous sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sectors {
    pub(crate) first: u64,
    pub(crate) count: u32,
}

/// A request to a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// Transfers contiguous sectors, and the frames that they fill, the last one perhaps in part.
    Transfer { direction: Direction, sectors: Sectors, frames: &'a [FrameNumber] },
    /// Makes durable what was written so far.
    Flush,
    /// Discards sectors.
    Discard(Sectors),
    /// Asks for the disk's identity.
    Identify,
}

/// The error of a device that breaks the protocol: nothing that it says can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A set of requests, a bit for each place.
pub(super) type RequestSet = u16;
const _: () = assert!(RequestSet::BITS as usize == MAX_REQUESTS, "every request has its bit");

/// The requests and their queue.
#[derive(Debug)]
pub(super) struct Requests {
    queue: Queue,
    cells: Cells,
    slots: Vec<Slot, KernelHeap>,
    /// The buffers of one request at a time. They are kept here, as a page fault that reads from a
    /// disk has little room on its stack.
    buffers: Buffers,
}

/// A place for a request.
#[derive(Debug)]
struct Slot {
    state: SlotState,
    direction: Direction,
    /// Where the data are; the first `count` parts are in use.
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

impl Requests {
    /// Sets up the device's queue. The device raises no interrupts until it is told to.
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
        let mut queue = Queue::new(transport, QUEUE)?;
        queue.set_dev_notify(false);
        Ok(Self { queue, cells, slots, buffers: Buffers::new()? })
    }

    /// Queues a request, and returns its place. Returns `None` when there is no place for it, or no
    /// descriptors.
    pub(super) fn submit(&mut self, request: Request<'_>) -> Option<usize> {
        let index = self.free_slot()?;
        self.prepare(index, request);
        if self.slots[index].count + 2 > self.queue.available_desc() {
            return None;
        }
        self.gather(index);
        let (read, written) = self.buffers.both();
        // SAFETY: header, status and inline data belong to the slot until it is done; the frames
        // belong to the caller, which does not access them.
        let token = unsafe { self.queue.add(read, written) }.ok()?;
        self.slots[index].state = SlotState::UnderWay(token);
        Some(index)
    }

    /// Takes a place for a request that is done already, with this result, and returns the place.
    pub(super) fn submit_done(&mut self, result: Result<(), BlockError>) -> Option<usize> {
        let index = self.free_slot()?;
        self.slots[index].state = SlotState::Done(result);
        Some(index)
    }

    /// Collects what the device has done. Returns the requests that are done now and were not
    /// before.
    ///
    /// # Errors
    /// [`Broken`] when what the device says is impossible.
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

    /// Ends all requests that are under way with an error. The device has been reset and does not
    /// access the buffers any more. Returns the requests that were under way.
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

    /// Returns whether the device has the request: it is neither done nor redeemed.
    pub(super) fn is_under_way(&self, index: usize) -> bool {
        matches!(self.slots[index].state, SlotState::UnderWay(_))
    }

    /// Returns a request that is under way, if there is one.
    pub(super) fn under_way(&self) -> Option<usize> {
        self.slots.iter().position(|slot| matches!(slot.state, SlotState::UnderWay(_)))
    }

    /// Returns how the request ended, if it has, and frees its place.
    pub(super) fn take(&mut self, index: usize) -> Option<Result<(), BlockError>> {
        let SlotState::Done(result) = self.slots[index].state else { return None };
        self.slots[index].state = SlotState::Free;
        Some(result)
    }

    /// Returns whether the device wants to be notified of new requests.
    pub(super) fn should_notify(&self) -> bool {
        // The device checks for requests after it has asked to be notified: its flag must not be
        // read before the requests are visible.
        fence(Ordering::SeqCst);
        self.queue.should_notify()
    }

    /// Tells the device whether to interrupt for requests that are done. Some may be done already:
    /// the caller reaps afterwards.
    pub(super) fn let_interrupt(&mut self, wanted: Interrupts) {
        self.queue.set_dev_notify(wanted == Interrupts::Wanted);
        fence(Ordering::SeqCst);
    }

    /// Returns the device's answer to [`Request::Identify`].
    pub(super) fn identity(&self, index: usize) -> [u8; ID_BYTES] {
        let mut identity = [0; ID_BYTES];
        identity.copy_from_slice(&self.cells.read(index).inline[..ID_BYTES]);
        identity
    }

    fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.state == SlotState::Free)
    }

    /// Writes the cell and notes where the data are.
    fn prepare(&mut self, index: usize, request: Request<'_>) {
        let slot = &mut self.slots[index];
        slot.count = 0;
        let cell = |kind, first_sector| Cell::new(kind, first_sector, STATUS_NONE);
        let cell = match request {
            Request::Transfer { direction, sectors, frames } => {
                assert!(frames.len() <= MAX_FRAMES, "a request transfers at most {MAX_FRAMES} frames");
                slot.direction = direction;
                let mut bytes = to_usize(u64::from(sectors.count) * SECTOR_BYTES);
                for frame in frames {
                    slot.append(Part { address: frame.address(), bytes: bytes.min(FRAME_SIZE) });
                    bytes = bytes.saturating_sub(FRAME_SIZE);
                }
                debug_assert_eq!(bytes, 0, "there are fewer frames than sectors to fill them");
                cell(if direction == Direction::Read { TYPE_IN } else { TYPE_OUT }, sectors.first)
            }
            Request::Flush => cell(TYPE_FLUSH, 0),
            Request::Discard(sectors) => {
                slot.direction = Direction::Write;
                slot.append(self.cells.inline(index, DISCARD_BYTES));
                let mut cell = cell(TYPE_DISCARD, 0);
                cell.inline[..8].copy_from_slice(&sectors.first.to_le_bytes());
                cell.inline[8..12].copy_from_slice(&sectors.count.to_le_bytes());
                cell
            }
            Request::Identify => {
                slot.direction = Direction::Read;
                slot.append(self.cells.inline(index, ID_BYTES));
                cell(TYPE_GET_ID, 0)
            }
        };
        self.cells.write(index, cell);
    }

    /// Collects the buffers of a request.
    fn gather(&mut self, index: usize) {
        let slot = &self.slots[index];
        let parts = &slot.parts[..slot.count];
        let (read, written) = match slot.direction {
            Direction::Write => (parts, &[][..]),
            Direction::Read => (&[][..], parts),
        };
        let (header, status) = (self.cells.header(index), self.cells.status(index));
        self.buffers
            .set(iter::once(header).chain(read.iter().copied()), written.iter().copied().chain(iter::once(status)));
    }

    /// Returns how a request ended of which the device says that it is done and that it has written
    /// `length` bytes to memory.
    fn result(&self, index: usize, length: usize) -> Result<(), BlockError> {
        let slot = &self.slots[index];
        let data = slot.parts[..slot.count].iter().map(|part| part.bytes).sum::<usize>();
        let room = 1 + if slot.direction == Direction::Read { data } else { 0 };
        match self.cells.read(index).status {
            // Data that the device does not claim to have written are no data.
            STATUS_OK if slot.direction == Direction::Read && length != room => Err(BlockError::Failed),
            STATUS_OK if length <= room => Ok(()),
            STATUS_UNSUPPORTED => Err(BlockError::Unsupported),
            _ => Err(BlockError::Failed),
        }
    }
}

/// Whether a device should interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupts {
    Wanted,
    Unwanted,
}

impl Slot {
    /// Adds data; extends the last part if they follow it in memory.
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

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
