//! The layout of a zspage, and access to its header and objects.
//!
//! In front is a header of 64 bytes: the class, which objects are in use, the frames, and the links
//! of two lists. An object is its length and the address of its page (eight bytes together), and
//! the compressed bytes. It may lie across the border of two frames.
#![allow(unsafe_code, reason = "headers and objects are laid out in raw frames")]

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};

use super::class::{CLASSES, Class};
use super::list::Links;

pub(super) const HEADER_BYTES: usize = 64;
/// Bytes of an object's head: length and page.
pub(super) const HEAD_BYTES: usize = 8;
/// Bits of the head that are the length. The rest is the page's address: all pages lie in the lower
/// half of the address space.
const LENGTH_BITS: u32 = 16;
/// Most frames of a zspage.
pub(crate) const MAX_FRAMES: usize = 3;
/// Bits of a [`Handle`] that number the object in its zspage.
pub(super) const INDEX_BITS: u32 = 4;

/// Names an object in the compressed pool: the number of its zspage's first frame, and its index in
/// the zspage. 28 bits of frame number are 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(u32);

impl Handle {
    /// Names object `index` of a zspage. Returns `None` when the number of the first frame is too
    /// large.
    pub(super) fn new(first: FrameNumber, index: usize) -> Option<Self> {
        let frame = u32::try_from(first.0).ok().filter(|frame| *frame < 1 << (32 - INDEX_BITS))?;
        Some(Self(frame << INDEX_BITS | u32::try_from(index).ok()?))
    }

    /// Returns the handle as a swap entry stores it.
    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the handle that a swap entry stores.
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn first_frame(self) -> FrameNumber {
        FrameNumber(u64::from(self.0 >> INDEX_BITS))
    }

    /// Returns the object's index in its zspage.
    pub(crate) fn index(self) -> usize {
        to_usize(u64::from(self.0)) % (1 << INDEX_BITS)
    }
}

/// The header of a zspage.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    /// An index of [`CLASSES`]; one that was read from a disk is checked first.
    pub(super) class: u8,
    /// Not zero while the zspage is being written to disk. It is in no list then, and nothing is
    /// added to it.
    pub(super) under_writeback: u8,
    /// The indexes in use, a bit each.
    pub(super) used: u16,
    /// Neighbours among the zspages of the class with room.
    pub(super) with_room: Links,
    /// Neighbours among all zspages, by age.
    pub(super) by_age: Links,
    /// The zspage's frames, this one first.
    pub(super) frames: [u32; MAX_FRAMES],
    /// The indexes whose objects are laid out, a bit each: an object's position is its rank among
    /// them. The objects of a packed zspage keep the indexes that page table entries have.
    pub(super) laid_out: u16,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

impl Header {
    pub(super) fn class(&self) -> Class {
        CLASSES[usize::from(self.class)]
    }

    /// Returns how many pages the zspage holds.
    pub(super) fn pages(&self) -> usize {
        self.used.count_ones() as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.pages() == self.class().objects
    }

    /// Returns whether the zspage holds fewer pages than frames.
    pub(super) fn is_sparse(&self) -> bool {
        self.pages() < self.class().frames
    }

    pub(super) fn frames(&self) -> ZspageFrames {
        let frames = self.frames.map(|frame| FrameNumber(u64::from(frame)));
        ZspageFrames { frames, count: self.class().frames }
    }

    pub(super) fn layout(&self) -> Layout {
        Layout { object_bytes: self.class().object_bytes(), laid_out: self.laid_out }
    }

    /// Returns the indexes in use, in ascending order.
    pub(super) fn indexes(&self) -> impl Iterator<Item = usize> + use<> {
        let used = self.used;
        (0..1 << INDEX_BITS).filter(move |index| used & 1 << index != 0)
    }
}

/// The frames of a zspage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZspageFrames {
    frames: [FrameNumber; MAX_FRAMES],
    count: usize,
}

impl ZspageFrames {
    /// Returns the frames, the one with the header first.
    pub(crate) fn as_slice(&self) -> &[FrameNumber] {
        &self.frames[..self.count]
    }
}

/// Where the objects of a zspage lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) object_bytes: usize,
    laid_out: u16,
}

impl Layout {
    /// Returns how many objects are laid out before the one with this index.
    pub(super) fn rank(self, index: usize) -> usize {
        (self.laid_out & ((1 << index) - 1)).count_ones() as usize
    }

    /// Returns the parts of an object: a frame of the zspage, an offset and a length each. The
    /// second is empty unless the object lies across a border.
    fn parts(self, index: usize) -> [(usize, usize, usize); 2] {
        let start = HEADER_BYTES + self.rank(index) * self.object_bytes;
        let (frame, offset) = (start / FRAME_SIZE, start % FRAME_SIZE);
        let first = self.object_bytes.min(FRAME_SIZE - offset);
        let rest = self.object_bytes - first;
        [(frame, offset, first), (if rest > 0 { frame + 1 } else { frame }, 0, rest)]
    }
}

/// A zspage in memory.
///
/// A value is the right to use the zspage's header and objects. It does not own the frames: the
/// pool does, from the moment when the header is written until it frees them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Zspage {
    first: FrameNumber,
}

impl Zspage {
    /// Returns the zspage that begins in a frame.
    ///
    /// # Safety
    /// The frame begins with a header that this module wrote or the pool has checked, and belongs
    /// to the compressed pool with all frames that the header names. While the value is used, there
    /// is no other `Zspage` for the same frame in use, and the pool does not free the frames.
    pub(super) unsafe fn at(first: FrameNumber) -> Self {
        Self { first }
    }

    /// Writes the header of an empty zspage into its first frame.
    ///
    /// # Safety
    /// The caller owns the frames, as many as the class has, and nothing else uses them.
    pub(super) unsafe fn create(class: u8, frames: [u32; MAX_FRAMES]) -> Self {
        let zspage = Self { first: FrameNumber(u64::from(frames[0])) };
        let links = Links::default();
        let header =
            Header { class, under_writeback: 0, used: 0, with_room: links, by_age: links, frames, laid_out: u16::MAX };
        // SAFETY: the frame is the caller's, and the identity map reaches it.
        unsafe { zspage.pointer().write(header) };
        zspage
    }

    /// Returns the number of the first frame.
    pub(super) fn first(&self) -> FrameNumber {
        self.first
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: by the contract of `at` and `create`, the frame begins with a header, and no
        // other reference to it is in use.
        unsafe { &*self.pointer() }
    }

    pub(super) fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as in `header`.
        unsafe { &mut *self.pointer() }
    }

    /// Returns the bytes of an object, in two parts where it lies across a border.
    pub(super) fn object(&self, layout: Layout, index: usize) -> (&[u8], &[u8]) {
        let [first, second] = layout.parts(index).map(|(frame, offset, length)| {
            // SAFETY: `bytes` returns a part of one object, and no part is borrowed mutably.
            unsafe { core::slice::from_raw_parts(self.bytes(frame, offset, length), length) }
        });
        (first, second)
    }

    /// Returns the bytes of an object for writing, in two parts likewise.
    pub(super) fn object_mut(&mut self, layout: Layout, index: usize) -> (&mut [u8], &mut [u8]) {
        let [first, second] = layout.parts(index).map(|(frame, offset, length)| {
            // SAFETY: `bytes` returns a part of one object; the two parts are in different frames,
            // and no other part is borrowed.
            unsafe { core::slice::from_raw_parts_mut(self.bytes(frame, offset, length), length) }
        });
        (first, second)
    }

    /// Writes an object.
    pub(super) fn write_object(&mut self, layout: Layout, index: usize, object: &[u8]) {
        let (first, second) = self.object_mut(layout, index);
        let split = object.len().min(first.len());
        first[..split].copy_from_slice(&object[..split]);
        second[..object.len() - split].copy_from_slice(&object[split..]);
    }

    /// Copies an object's bytes, as many as `buffer` has.
    pub(super) fn read_object(&self, layout: Layout, index: usize, buffer: &mut [u8]) {
        let (first, second) = self.object(layout, index);
        for (byte, from) in buffer.iter_mut().zip(first.iter().chain(second)) {
            *byte = *from;
        }
    }

    /// Returns the handle and the address of each page in the zspage.
    pub(super) fn pages(&self) -> impl Iterator<Item = (Handle, u64)> + '_ {
        self.header().indexes().filter_map(|index| self.page(index))
    }

    /// Returns the same for a zspage that is not used otherwise meanwhile.
    pub(super) fn into_pages(self) -> impl Iterator<Item = (Handle, u64)> {
        self.header().indexes().filter_map(move |index| self.page(index))
    }

    fn page(&self, index: usize) -> Option<(Handle, u64)> {
        let mut head = [0; HEAD_BYTES];
        self.read_object(self.header().layout(), index, &mut head);
        Some((Handle::new(self.first, index)?, head_of(&head).1))
    }

    fn pointer(&self) -> *mut Header {
        core::ptr::with_exposed_provenance_mut(to_usize(self.first.address()))
    }

    /// Returns a pointer to bytes of the zspage behind its header.
    fn bytes(&self, frame: usize, offset: usize, length: usize) -> *mut u8 {
        let number = FrameNumber(u64::from(self.header().frames[frame]));
        debug_assert!(offset + length <= FRAME_SIZE && (length == 0 || frame > 0 || offset >= HEADER_BYTES));
        core::ptr::with_exposed_provenance_mut::<u8>(to_usize(number.address())).wrapping_add(offset)
    }
}

/// Returns the head of an object: its length and its page.
pub(super) fn head(length: usize, page: u64) -> [u8; HEAD_BYTES] {
    (page << LENGTH_BITS | length as u64).to_le_bytes()
}

/// Returns length and page of an object.
pub(super) fn head_of(object: &[u8]) -> (usize, u64) {
    let head = object.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (to_usize(head & ((1 << LENGTH_BITS) - 1)), head >> LENGTH_BITS)
}
