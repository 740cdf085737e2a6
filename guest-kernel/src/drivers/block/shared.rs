//! The memory that a disk's requests share with the device besides the caller's frames: a cell for
//! each request, and the list of its buffers.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::mem::offset_of;
use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_SIZE, to_usize};
use allocator_api2::vec::Vec;
use virtio_drivers::{BufferDirection, Error, Hal};

use super::requests::{MAX_FRAMES, MAX_REQUESTS};
use crate::drivers::virtio::hal::KernelHal;
use crate::mm::KernelHeap;

/// The most buffers of one request that the device only reads, or only writes: the data, and the
/// header or the status.
const MAX_BUFFERS: usize = MAX_FRAMES + 1;

pub(super) const HEADER_BYTES: usize = 16;
/// Bytes for the data of requests that transfer no frames.
const INLINE_BYTES: usize = 24;
const _: () = assert!(size_of::<Cell>() * MAX_REQUESTS <= FRAME_SIZE, "all cells fit into a page");
const _: () = assert!(offset_of!(Cell, inline) == HEADER_BYTES, "the header is as the standard has it");

/// The part of a request that the device accesses besides the data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Cell {
    kind: u32,
    reserved: u32,
    first_sector: u64,
    pub(super) inline: [u8; INLINE_BYTES],
    pub(super) status: u8,
}

impl Cell {
    /// Returns a request's cell as the device gets it.
    pub(super) fn new(kind: u32, first_sector: u64, status: u8) -> Self {
        Self { kind, reserved: 0, first_sector, inline: [0; INLINE_BYTES], status }
    }
}

/// The page of cells, one for each place of a request.
#[derive(Debug)]
pub(super) struct Cells {
    first: NonNull<Cell>,
}

// SAFETY: the page belongs to this value, and is used through it alone.
unsafe impl Send for Cells {}

impl Cells {
    /// Allocates the page. Returns `None` if there is no memory.
    pub(super) fn new() -> Option<Self> {
        let (address, memory) = KernelHal::dma_alloc(1, BufferDirection::Both);
        (address != 0).then(|| Self { first: memory.cast() })
    }

    /// Writes a cell. The device must not have its request.
    pub(super) fn write(&mut self, index: usize, cell: Cell) {
        // SAFETY: the cell is within the page and aligned.
        unsafe { self.cell(index).write_volatile(cell) };
    }

    /// Reads a cell as the device has left it.
    pub(super) fn read(&self, index: usize) -> Cell {
        // SAFETY: the cell is within the page and initialized (the page is zeroed); any bits are a
        // cell.
        unsafe { self.cell(index).read_volatile() }
    }

    /// Returns where the header is.
    pub(super) fn header(&self, index: usize) -> Part {
        Part { address: self.address(index), bytes: HEADER_BYTES }
    }

    /// Returns where the first `bytes` bytes of the inline data are.
    pub(super) fn inline(&self, index: usize, bytes: usize) -> Part {
        debug_assert!(bytes <= INLINE_BYTES);
        Part { address: self.address(index) + offset_of!(Cell, inline) as u64, bytes }
    }

    /// Returns where the status is.
    pub(super) fn status(&self, index: usize) -> Part {
        Part { address: self.address(index) + offset_of!(Cell, status) as u64, bytes: 1 }
    }

    fn address(&self, index: usize) -> u64 {
        self.cell(index).addr().get() as u64
    }

    fn cell(&self, index: usize) -> NonNull<Cell> {
        assert!(index < MAX_REQUESTS, "there is no place {index} for a request");
        // SAFETY: the page has a cell for each place.
        unsafe { self.first.add(index) }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        // SAFETY: the page was allocated in `new`, and the device that had its address has been
        // reset.
        unsafe { KernelHal::dma_dealloc(0, self.first.cast(), 1) };
    }
}

/// Contiguous bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) bytes: usize,
}

impl Part {
    /// Returns the bytes as a pointer. They are mapped at their own address, and belong to the
    /// owner of the request, which doesn't access them until the request is done.
    fn pointer(self) -> NonNull<[u8]> {
        let pointer = core::ptr::with_exposed_provenance_mut(to_usize(self.address));
        NonNull::slice_from_raw_parts(NonNull::new(pointer).unwrap_or(NonNull::dangling()), self.bytes)
    }
}

/// The buffers of one request.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Read by the device.
    read: Vec<NonNull<[u8]>, KernelHeap>,
    /// Written by the device.
    written: Vec<NonNull<[u8]>, KernelHeap>,
}

// SAFETY: only the device follows the pointers.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Allocates room for all buffers that a request can have.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn new() -> Result<Self, Error> {
        let mut buffers = Self { read: Vec::new_in(KernelHeap), written: Vec::new_in(KernelHeap) };
        buffers.read.try_reserve_exact(MAX_BUFFERS).map_err(|_| Error::DmaError)?;
        buffers.written.try_reserve_exact(MAX_BUFFERS).map_err(|_| Error::DmaError)?;
        Ok(buffers)
    }

    /// Replaces the buffers.
    pub(super) fn set(&mut self, read: impl Iterator<Item = Part>, written: impl Iterator<Item = Part>) {
        self.read.clear();
        self.read.extend(read.map(Part::pointer));
        self.written.clear();
        self.written.extend(written.map(Part::pointer));
    }

    /// Returns the buffers as the queue takes them; it uses only their addresses and lengths.
    pub(super) fn both(&mut self) -> (&[&[u8]], &mut [&mut [u8]]) {
        let (read, written) = (self.read.as_ptr().cast::<&[u8]>(), self.written.as_mut_ptr().cast::<&mut [u8]>());
        // SAFETY: a reference has the layout of the pointer; the header is mapped, and the data
        // belong to the owner of the request.
        let read = unsafe { core::slice::from_raw_parts(read, self.read.len()) };
        // SAFETY: as above, and no two buffers overlap.
        let written = unsafe { core::slice::from_raw_parts_mut(written, self.written.len()) };
        (read, written)
    }
}
