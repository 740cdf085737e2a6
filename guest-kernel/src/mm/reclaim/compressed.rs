//! The compressed tier: evicted pages, LZ4-compressed, packed into frames.
//!
//! A frame of the tier holds objects of one *class*, up to 15 of them, behind a header of 64 bytes: class, which places are used,
//! and the links of two lists. An object is its length, the page it belongs to (eight bytes together) and the compressed bytes. So
//! a page is found from its [`Place`] alone, and storing or dropping one is O(1). The idea is zsmalloc's (Linux), simplified by
//! knowing that no object is larger than half a frame: what does not compress to that is not worth keeping here.
//!
//! One list holds the frames of a class that have room, the other all frames by age: the oldest is the next to be written to disk,
//! as it is, where there is one ([`CompressedTier::begin_leaving`]). It comes back as it is, too: because an object names its page,
//! the page table entries of all pages in a frame can be found from the frame ([`CompressedTier::pages`]).
//!
//! Storing allocates nothing but, at times, a frame for a class that is full; and it needs no memory to drop an object.
#![allow(unsafe_code, reason = "objects are laid out in raw frames")]

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::mm::block::{Block, BlockSize, Contents};

const HEADER_BYTES: usize = 64;
/// Length and page of an object.
const HEAD_BYTES: usize = 8;
/// Bits of the head that are the length; the rest are the page's address, all of which lie in the lower half.
const LENGTH_BITS: u32 = 16;
/// Objects in a frame, at least and at most; each number is a class.
const FEWEST: usize = 2;
const MOST: usize = 15;
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
    /// Place `index` of a frame; `None` when the frame's number is too large.
    pub(crate) fn new(frame: FrameNumber, index: usize) -> Option<Self> {
        let frame = u32::try_from(frame.0).ok().filter(|frame| *frame < 1 << (32 - INDEX_BITS))?;
        Some(Self(frame << INDEX_BITS | u32::try_from(index).ok()?))
    }

    fn frame(self) -> FrameNumber {
        FrameNumber(u64::from(self.0 >> INDEX_BITS))
    }

    /// The object's number in its frame.
    pub(crate) fn index(self) -> usize {
        to_usize(u64::from(self.0)) % (1 << INDEX_BITS)
    }
}

/// The head of a frame of the tier.
#[derive(Debug)]
#[repr(C)]
struct Header {
    class: usize,
    used: u64,
    /// Neighbours among the frames of the class with room.
    with_room: Links,
    /// Neighbours among all frames, by age.
    by_age: Links,
    /// Not zero while it is being written to disk: nothing is added then, and it is in neither list.
    leaving: u64,
}

/// Neighbours in a list of frames; 0 for none, as frame 0 is never handed out.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Links {
    previous: u64,
    next: u64,
}

/// Which of its two lists a frame is put into or taken out of.
type List = fn(&mut Header) -> &mut Links;

const WITH_ROOM: List = |header| &mut header.with_room;
const BY_AGE: List = |header| &mut header.by_age;

/// The ends of a list of frames.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    first: u64,
    last: u64,
}

impl Ends {
    const EMPTY: Self = Self { first: 0, last: 0 };

    /// Adds a frame at the end.
    fn append(&mut self, frame: FrameNumber, list: List) {
        *list(header_of(frame)) = Links { previous: self.last, next: 0 };
        match self.last {
            0 => self.first = frame.0,
            last => list(header_of(FrameNumber(last))).next = frame.0,
        }
        self.last = frame.0;
    }

    fn remove(&mut self, frame: FrameNumber, list: List) {
        let Links { previous, next } = *list(header_of(frame));
        match previous {
            0 => self.first = next,
            previous => list(header_of(FrameNumber(previous))).next = next,
        }
        match next {
            0 => self.last = previous,
            next => list(header_of(FrameNumber(next))).previous = previous,
        }
    }
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
    /// Frames with room, by class.
    with_room: [Ends; CLASSES],
    /// All frames but those that are leaving, the oldest first.
    by_age: Ends,
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
            with_room: [Ends::EMPTY; CLASSES],
            by_age: Ends::EMPTY,
            statistics: TierStatistics { pages: 0, frames: FrameCount::ZERO },
            workspace: Workspace { table: CompressTable::small(), output: [0; OUTPUT_BYTES] },
        }
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        self.statistics
    }

    /// Compresses a page, whose address is `address`, and keeps it. `frame` is asked for another frame when the page's class has no
    /// room.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was kept then.
    pub(crate) fn store(
        &mut self,
        address: u64,
        page: &[u8; FRAME_SIZE],
        frame: impl FnOnce() -> Option<Block>,
    ) -> Result<Place, StoreError> {
        let workspace = &mut self.workspace;
        let length = compress_into_with_table(page, &mut workspace.output, &mut workspace.table)
            .map_err(|_| StoreError::Incompressible)?;
        let class = class_of(length + HEAD_BYTES).ok_or(StoreError::Incompressible)?;
        if self.with_room[class].first == 0 {
            self.add_frame(class, frame().ok_or(StoreError::NoFrame)?);
        }
        let frame = FrameNumber(self.with_room[class].first);
        let header = header_of(frame);
        let index = to_usize(u64::from(header.used.trailing_ones()));
        let place = Place::new(frame, index).ok_or(StoreError::NoFrame)?;
        header.used |= 1 << index;
        if header.used.count_ones() as usize == capacity(class) {
            self.with_room[class].remove(frame, WITH_ROOM);
        }
        let (head, body) = object_of(place, class).split_at_mut(HEAD_BYTES);
        head.copy_from_slice(&(address << LENGTH_BITS | length as u64).to_le_bytes());
        body[..length].copy_from_slice(&self.workspace.output[..length]);
        self.statistics.pages += 1;
        Ok(place)
    }

    /// Writes the page kept at `place` into `page`; `false` if it can't be what was stored.
    #[must_use]
    pub(crate) fn load(&self, place: Place, page: &mut [u8; FRAME_SIZE]) -> bool {
        let object = object_of(place, header_of(place.frame()).class);
        let (length, _) = head_of(object);
        object
            .get(HEAD_BYTES..HEAD_BYTES + length)
            .is_some_and(|bytes| matches!(decompress_into(bytes, page), Ok(FRAME_SIZE)))
    }

    /// Forgets the page kept at `place`; a frame that is empty thereby is given back.
    pub(crate) fn drop_page(&mut self, place: Place) -> Option<Block> {
        let frame = place.frame();
        let header = header_of(frame);
        debug_assert!(header.used & 1 << place.index() != 0, "{place:?} holds no page");
        let was_full = header.used.count_ones() as usize == capacity(header.class);
        header.used &= !(1 << place.index());
        self.statistics.pages -= 1;
        if header.leaving != 0 {
            return None; // the disk still reads it
        }
        let (class, is_empty) = (header.class, header.used == 0);
        if is_empty {
            if !was_full {
                self.with_room[class].remove(frame, WITH_ROOM);
            }
            self.by_age.remove(frame, BY_AGE);
            return Some(self.give_up(frame));
        }
        if was_full {
            self.with_room[class].append(frame, WITH_ROOM);
        }
        None
    }

    /// Takes the oldest frame out of use, to be written to disk: its pages can still be loaded and dropped. Ends with
    /// [`Self::left`] or [`Self::stay`].
    pub(crate) fn begin_leaving(&mut self) -> Option<FrameNumber> {
        let frame = Some(FrameNumber(self.by_age.first)).filter(|frame| frame.0 != 0)?;
        let header = header_of(frame);
        header.leaving = 1;
        let (class, is_full) = (header.class, header.used.count_ones() as usize == capacity(header.class));
        if !is_full {
            self.with_room[class].remove(frame, WITH_ROOM);
        }
        self.by_age.remove(frame, BY_AGE);
        Some(frame)
    }

    /// A leaving frame is on disk: the frame is the caller's, its pages are the tier's no more.
    pub(crate) fn left(&mut self, frame: FrameNumber) -> Block {
        self.statistics.pages -= u64::from(header_of(frame).used.count_ones());
        self.give_up(frame)
    }

    /// A leaving frame could not be written: it is in use again, unless nothing is left in it.
    pub(crate) fn stay(&mut self, frame: FrameNumber) -> Option<Block> {
        let header = header_of(frame);
        header.leaving = 0;
        if header.used == 0 {
            return Some(self.give_up(frame));
        }
        self.link(frame);
        None
    }

    /// Pages in a frame, a bit each.
    pub(crate) fn used(&self, frame: FrameNumber) -> u16 {
        u16::try_from(header_of(frame).used).unwrap_or(0)
    }

    /// The pages in a frame: each one's place and address.
    pub(crate) fn pages(&self, frame: FrameNumber) -> impl Iterator<Item = (Place, u64)> + use<> {
        let (class, used) = (header_of(frame).class, header_of(frame).used);
        (0..capacity(class)).filter(move |index| used & 1 << index != 0).filter_map(move |index| {
            let place = Place::new(frame, index)?;
            Some((place, head_of(object_of(place, class)).1))
        })
    }

    /// Takes a frame back that was written to disk. Of its pages, only those in `wanted` are kept.
    ///
    /// # Errors
    /// The block, when it is not a frame of the tier or has none of these pages.
    pub(crate) fn adopt(&mut self, block: Block, wanted: u16) -> Result<FrameNumber, Block> {
        let header = header_of(block.first());
        let is_ours = header.class < CLASSES && header.used >> capacity(header.class.min(CLASSES - 1)) == 0;
        header.used &= u64::from(wanted);
        if !is_ours || header.used == 0 {
            return Err(block);
        }
        header.leaving = 0;
        self.statistics.pages += u64::from(header.used.count_ones());
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(1));
        let frame = block.into_number();
        self.link(frame);
        Ok(frame)
    }

    fn add_frame(&mut self, class: usize, block: Block) {
        let frame = block.into_number();
        let (with_room, by_age) = (Links::default(), Links::default());
        *header_of(frame) = Header { class, used: 0, with_room, by_age, leaving: 0 };
        self.link(frame);
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(1));
    }

    /// Puts a frame into the lists where it belongs, as the youngest.
    fn link(&mut self, frame: FrameNumber) {
        let header = header_of(frame);
        let (class, is_full) = (header.class, header.used.count_ones() as usize == capacity(header.class));
        if !is_full {
            self.with_room[class].append(frame, WITH_ROOM);
        }
        self.by_age.append(frame, BY_AGE);
    }

    fn give_up(&mut self, frame: FrameNumber) -> Block {
        self.statistics.frames = self.statistics.frames.saturating_sub(FrameCount(1));
        Block::from_number(frame, BlockSize::Frame, Contents::Unknown)
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

/// Length and page of an object.
fn head_of(object: &[u8]) -> (usize, u64) {
    let head = object.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (to_usize(head & ((1 << LENGTH_BITS) - 1)), head >> LENGTH_BITS)
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
