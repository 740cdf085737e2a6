//! The compressed tier: evicted pages, LZ4-compressed, packed into frames.
//!
//! A frame of the tier holds objects of one *class*, up to 16 of them, behind a header of 64 bytes: class, which places are used,
//! and the links of the list of frames of that class with room. An object is its length (two bytes) and the compressed bytes. So a
//! page is found from its [`Place`] alone, and storing or dropping one is O(1). The idea is zsmalloc's (Linux), simplified by
//! knowing that no object is larger than half a frame: what does not compress to that is not worth keeping here.
//!
//! Storing allocates nothing but, at times, a frame for a class that is full; and it needs no memory to drop an object.
#![allow(unsafe_code, reason = "objects are laid out in raw frames")]

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::mm::block::{Block, BlockSize, Contents};

const HEADER_BYTES: usize = 64;
const LENGTH_BYTES: usize = 2;
/// Objects in a frame, at least and at most; each number is a class.
const FEWEST: usize = 2;
const MOST: usize = 16;
const CLASSES: usize = MOST - FEWEST + 1;
/// What LZ4 may need for a page that does not compress.
const OUTPUT_BYTES: usize = get_maximum_output_size(FRAME_SIZE);
/// Bits of a [`Place`] that number the object in its frame.
const INDEX_BITS: u32 = 4;

const _: () = assert!(MOST <= 1 << INDEX_BITS);

/// Where an object is: frame number and place in the frame. 28 bits of frame number are 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

impl Place {
    fn new(frame: FrameNumber, index: usize) -> Option<Self> {
        let frame = u32::try_from(frame.0).ok().filter(|frame| *frame < 1 << (32 - INDEX_BITS))?;
        Some(Self(frame << INDEX_BITS | u32::try_from(index).ok()?))
    }

    fn frame(self) -> FrameNumber {
        FrameNumber(u64::from(self.0 >> INDEX_BITS))
    }

    fn index(self) -> usize {
        to_usize(u64::from(self.0)) % (1 << INDEX_BITS)
    }
}

/// The head of a frame of the tier.
#[derive(Debug)]
#[repr(C)]
struct Header {
    class: usize,
    used: u64,
    /// Neighbours among the frames of the class with room; 0 for none, as frame 0 is never handed out.
    previous: u64,
    next: u64,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

/// What the tier holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TierStatistics {
    /// Pages.
    pub(crate) pages: u64,
    /// Frames that they occupy.
    pub(crate) frames: FrameCount,
}

/// Why a page was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    /// It does not compress to half its size.
    Incompressible,
    /// There is no frame for it.
    NoFrame,
}

/// The tier.
#[derive(Debug)]
pub(crate) struct CompressedTier {
    /// First frame with room, by class.
    with_room: [u64; CLASSES],
    statistics: TierStatistics,
    workspace: Workspace,
}

/// What compression needs beside the page, made once: the way out of memory allocates nothing.
struct Workspace {
    table: CompressTable,
    output: [u8; OUTPUT_BYTES],
}

impl core::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Workspace")
    }
}

impl CompressedTier {
    /// An empty tier.
    pub(crate) const fn new() -> Self {
        Self {
            with_room: [0; CLASSES],
            statistics: TierStatistics { pages: 0, frames: FrameCount::ZERO },
            workspace: Workspace { table: CompressTable::small(), output: [0; OUTPUT_BYTES] },
        }
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        self.statistics
    }

    /// Compresses a page and keeps it. `frame` is asked for another frame when the page's class has no room.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was kept then.
    pub(crate) fn store(
        &mut self,
        page: &[u8; FRAME_SIZE],
        frame: impl FnOnce() -> Option<Block>,
    ) -> Result<Place, StoreError> {
        let workspace = &mut self.workspace;
        let length = compress_into_with_table(page, &mut workspace.output, &mut workspace.table)
            .map_err(|_| StoreError::Incompressible)?;
        let class = class_of(length + LENGTH_BYTES).ok_or(StoreError::Incompressible)?;
        if self.with_room[class] == 0 {
            self.add_frame(class, frame().ok_or(StoreError::NoFrame)?);
        }
        let frame = FrameNumber(self.with_room[class]);
        let header = header_of(frame);
        let index = to_usize(u64::from(header.used.trailing_ones()));
        let place = Place::new(frame, index).ok_or(StoreError::NoFrame)?;
        header.used |= 1 << index;
        if header.used.count_ones() as usize == capacity(class) {
            self.unlink(frame);
        }
        let object = object_of(place, class);
        let (head, body) = object.split_at_mut(LENGTH_BYTES);
        head.copy_from_slice(&u16::try_from(length).map_err(|_| StoreError::Incompressible)?.to_le_bytes());
        body[..length].copy_from_slice(&self.workspace.output[..length]);
        self.statistics.pages += 1;
        Ok(place)
    }

    /// Writes the page kept at `place` into `page`; `false` if it can't be what was stored.
    #[must_use]
    pub(crate) fn load(&self, place: Place, page: &mut [u8; FRAME_SIZE]) -> bool {
        let object = object_of(place, header_of(place.frame()).class);
        let (head, body) = object.split_at(LENGTH_BYTES);
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        body.get(..length).is_some_and(|bytes| matches!(decompress_into(bytes, page), Ok(FRAME_SIZE)))
    }

    /// Forgets the page kept at `place`; a frame that is empty thereby is given back.
    pub(crate) fn drop_page(&mut self, place: Place) -> Option<Block> {
        let frame = place.frame();
        let header = header_of(frame);
        debug_assert!(header.used & 1 << place.index() != 0, "{place:?} holds no page");
        let was_full = header.used.count_ones() as usize == capacity(header.class);
        header.used &= !(1 << place.index());
        self.statistics.pages -= 1;
        if header.used != 0 {
            if was_full {
                self.link(frame, header.class);
            }
            return None;
        }
        if !was_full {
            self.unlink(frame);
        }
        self.statistics.frames = self.statistics.frames.saturating_sub(FrameCount(1));
        Some(Block::from_number(frame, BlockSize::Frame, Contents::Unknown))
    }

    fn add_frame(&mut self, class: usize, block: Block) {
        let frame = block.into_number();
        *header_of(frame) = Header { class, used: 0, previous: 0, next: 0 };
        self.link(frame, class);
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(1));
    }

    fn link(&mut self, frame: FrameNumber, class: usize) {
        let first = self.with_room[class];
        if first != 0 {
            header_of(FrameNumber(first)).previous = frame.0;
        }
        let header = header_of(frame);
        (header.previous, header.next) = (0, first);
        self.with_room[class] = frame.0;
    }

    fn unlink(&mut self, frame: FrameNumber) {
        let Header { class, previous, next, .. } = *header_of(frame);
        if previous == 0 {
            self.with_room[class] = next;
        } else {
            header_of(FrameNumber(previous)).next = next;
        }
        if next != 0 {
            header_of(FrameNumber(next)).previous = previous;
        }
    }
}

/// Objects in a frame of `class`.
const fn capacity(class: usize) -> usize {
    class + FEWEST
}

/// Bytes of an object of `class`.
const fn object_bytes(class: usize) -> usize {
    (FRAME_SIZE - HEADER_BYTES) / capacity(class)
}

/// The class with the smallest objects that hold `bytes`.
fn class_of(bytes: usize) -> Option<usize> {
    let fit = ((FRAME_SIZE - HEADER_BYTES) / bytes).min(MOST);
    fit.checked_sub(FEWEST)
}

fn header_of(frame: FrameNumber) -> &'static mut Header {
    let pointer = core::ptr::with_exposed_provenance_mut::<Header>(to_usize(frame.address()));
    // SAFETY: the frame belongs to the tier, is reachable at its own address, and begins with a header that `add_frame` wrote; the
    // tier is used under one lock and keeps no header reference across a call that makes another to the same frame.
    unsafe { &mut *pointer }
}

fn object_of(place: Place, class: usize) -> &'static mut [u8] {
    let address = to_usize(place.frame().address()) + HEADER_BYTES + place.index() * object_bytes(class);
    let pointer = core::ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: the object lies within the tier's frame, apart from header and other objects, and is used under the tier's lock.
    unsafe { core::slice::from_raw_parts_mut(pointer, object_bytes(class)) }
}
