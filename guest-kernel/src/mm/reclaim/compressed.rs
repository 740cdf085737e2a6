//! The compressed tier: evicted pages, LZ4-compressed, packed into groups of frames.
//!
//! A group is one to three frames, wherever they lie, that hold objects of one *class* as if they followed each other: 16 small
//! ones in a frame, or four of three quarters of a page in three. In front is a header of 64 bytes: class, which places are used,
//! the group's frames, and the links of the list of groups of that class with room. An object is its length (two bytes) and the
//! compressed bytes; it may lie across the border of two frames. So a page is found from its [`Place`] alone, and storing or
//! dropping one is O(1). The idea is zsmalloc's (Linux). Text compresses to 50 to 70 % of a page: without groups of several frames,
//! most of it would have to stay. What does not compress to three quarters is not worth keeping here.
//!
//! Storing allocates nothing but, at times, the frames of a group for a class that is full; and it needs no memory to drop an object.
#![allow(unsafe_code, reason = "objects are laid out in raw frames")]

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::mm::block::{Block, BlockSize, Contents};

const HEADER_BYTES: usize = 64;
const LENGTH_BYTES: usize = 2;
/// Frames of a group at most.
const MOST_FRAMES: usize = 3;
/// What LZ4 may need for a page that does not compress.
const OUTPUT_BYTES: usize = get_maximum_output_size(FRAME_SIZE);
/// Bits of a [`Place`] that number the object in its group.
const INDEX_BITS: u32 = 4;

/// How the groups of a class are divided.
#[derive(Clone, Copy, Debug)]
struct Class {
    frames: usize,
    objects: usize,
}

/// The classes, those with the largest objects first.
const CLASSES: [Class; 18] = [
    Class { frames: 3, objects: 4 },
    Class { frames: 2, objects: 3 },
    Class { frames: 3, objects: 5 },
    Class { frames: 1, objects: 2 },
    Class { frames: 2, objects: 5 },
    Class { frames: 1, objects: 3 },
    Class { frames: 1, objects: 4 },
    Class { frames: 1, objects: 5 },
    Class { frames: 1, objects: 6 },
    Class { frames: 1, objects: 7 },
    Class { frames: 1, objects: 8 },
    Class { frames: 1, objects: 9 },
    Class { frames: 1, objects: 10 },
    Class { frames: 1, objects: 11 },
    Class { frames: 1, objects: 12 },
    Class { frames: 1, objects: 13 },
    Class { frames: 1, objects: 14 },
    Class { frames: 1, objects: 16 },
];

impl Class {
    /// Bytes of an object.
    const fn object_bytes(self) -> usize {
        (self.frames * FRAME_SIZE - HEADER_BYTES) / self.objects
    }
}

const _: () = {
    let mut class = 0;
    while class < CLASSES.len() {
        let Class { frames, objects } = CLASSES[class];
        assert!(frames <= MOST_FRAMES && objects <= 1 << INDEX_BITS);
        assert!(class == 0 || CLASSES[class].object_bytes() < CLASSES[class - 1].object_bytes());
        class += 1;
    }
};

/// Where an object is: the number of its group's first frame, and its place in the group. 28 bits of frame number are 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

impl Place {
    fn new(group: FrameNumber, index: usize) -> Option<Self> {
        let frame = u32::try_from(group.0).ok().filter(|frame| *frame < 1 << (32 - INDEX_BITS))?;
        Some(Self(frame << INDEX_BITS | u32::try_from(index).ok()?))
    }

    fn group(self) -> FrameNumber {
        FrameNumber(u64::from(self.0 >> INDEX_BITS))
    }

    fn index(self) -> usize {
        to_usize(u64::from(self.0)) % (1 << INDEX_BITS)
    }
}

/// The head of a group.
#[derive(Debug)]
#[repr(C)]
struct Header {
    class: usize,
    used: u64,
    /// Neighbours among the groups of the class with room, by their first frames; 0 for none, as frame 0 is never handed out.
    previous: u64,
    next: u64,
    /// The group's frames, this one first.
    frames: [FrameNumber; MOST_FRAMES],
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);

impl Header {
    fn class(&self) -> Class {
        CLASSES[self.class]
    }

    fn is_full(&self) -> bool {
        self.used.count_ones() as usize == self.class().objects
    }
}

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
    /// It does not compress to three quarters of its size.
    Incompressible,
    /// There is no frame for it.
    NoFrame,
}

/// The tier.
#[derive(Debug)]
pub(crate) struct CompressedTier {
    /// First group with room, by class.
    with_room: [u64; CLASSES.len()],
    statistics: TierStatistics,
    workspace: Workspace,
}

/// What compression needs beside the page, made once: the way out of memory allocates nothing.
struct Workspace {
    table: CompressTable,
    /// An object, as it is stored.
    object: [u8; LENGTH_BYTES + OUTPUT_BYTES],
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
            with_room: [0; CLASSES.len()],
            statistics: TierStatistics { pages: 0, frames: FrameCount::ZERO },
            workspace: Workspace { table: CompressTable::small(), object: [0; LENGTH_BYTES + OUTPUT_BYTES] },
        }
    }

    pub(crate) fn statistics(&self) -> TierStatistics {
        self.statistics
    }

    /// Compresses a page and keeps it. `frame` is asked for more frames when the page's class has no room; `free` takes back what
    /// did not suffice.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was kept then.
    pub(crate) fn store(
        &mut self,
        page: &[u8; FRAME_SIZE],
        frame: impl FnMut() -> Option<Block>,
        free: impl FnMut(Block),
    ) -> Result<Place, StoreError> {
        let (head, body) = self.workspace.object.split_at_mut(LENGTH_BYTES);
        let length =
            compress_into_with_table(page, body, &mut self.workspace.table).map_err(|_| StoreError::Incompressible)?;
        head.copy_from_slice(&u16::try_from(length).map_err(|_| StoreError::Incompressible)?.to_le_bytes());
        let class = class_of(LENGTH_BYTES + length).ok_or(StoreError::Incompressible)?;
        if self.with_room[class] == 0 {
            self.add_group(class, frame, free)?;
        }
        let group = FrameNumber(self.with_room[class]);
        let header = header_of(group);
        let index = to_usize(u64::from(header.used.trailing_ones()));
        let place = Place::new(group, index).ok_or(StoreError::NoFrame)?;
        header.used |= 1 << index;
        if header.is_full() {
            self.unlink(group);
        }
        let (first, second) = parts_of(place);
        let object = &self.workspace.object[..LENGTH_BYTES + length];
        let split = object.len().min(first.len());
        first[..split].copy_from_slice(&object[..split]);
        second[..object.len() - split].copy_from_slice(&object[split..]);
        self.statistics.pages += 1;
        Ok(place)
    }

    /// Writes the page kept at `place` into `page`; `false` if it can't be what was stored.
    #[must_use]
    pub(crate) fn load(&mut self, place: Place, page: &mut [u8; FRAME_SIZE]) -> bool {
        let (first, second) = parts_of(place);
        let object = if second.is_empty() {
            &*first
        } else {
            let workspace = &mut self.workspace.object[..first.len() + second.len()];
            let (head, tail) = workspace.split_at_mut(first.len());
            head.copy_from_slice(first);
            tail.copy_from_slice(second);
            &*workspace
        };
        let (head, body) = object.split_at(LENGTH_BYTES);
        let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
        body.get(..length).is_some_and(|bytes| matches!(decompress_into(bytes, page), Ok(FRAME_SIZE)))
    }

    /// Forgets the page kept at `place`; the frames of a group that is empty thereby are given back.
    pub(crate) fn drop_page(&mut self, place: Place, mut give_back: impl FnMut(Block)) {
        let group = place.group();
        let header = header_of(group);
        debug_assert!(header.used & 1 << place.index() != 0, "{place:?} holds no page");
        let was_full = header.is_full();
        header.used &= !(1 << place.index());
        self.statistics.pages -= 1;
        if header.used != 0 {
            if was_full {
                self.link(group);
            }
            return;
        }
        let (class, frames) = (header.class(), header.frames);
        if !was_full {
            self.unlink(group);
        }
        self.statistics.frames = self.statistics.frames.saturating_sub(FrameCount(class.frames as u64));
        for frame in &frames[..class.frames] {
            give_back(Block::from_number(*frame, BlockSize::Frame, Contents::Unknown));
        }
    }

    /// Makes an empty group, of all the frames that its class needs or none.
    fn add_group(
        &mut self,
        class: usize,
        mut frame: impl FnMut() -> Option<Block>,
        mut free: impl FnMut(Block),
    ) -> Result<(), StoreError> {
        let mut frames = [FrameNumber(0); MOST_FRAMES];
        let count = CLASSES[class].frames;
        for place in 0..count {
            let Some(block) = frame() else {
                for frame in &frames[..place] {
                    free(Block::from_number(*frame, BlockSize::Frame, Contents::Unknown));
                }
                return Err(StoreError::NoFrame);
            };
            frames[place] = block.into_number();
        }
        *header_of(frames[0]) = Header { class, used: 0, previous: 0, next: 0, frames };
        self.link(frames[0]);
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(count as u64));
        Ok(())
    }

    fn link(&mut self, group: FrameNumber) {
        let class = header_of(group).class;
        let first = self.with_room[class];
        if first != 0 {
            header_of(FrameNumber(first)).previous = group.0;
        }
        let header = header_of(group);
        (header.previous, header.next) = (0, first);
        self.with_room[class] = group.0;
    }

    fn unlink(&mut self, group: FrameNumber) {
        let Header { class, previous, next, .. } = *header_of(group);
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

/// The class with the smallest objects that hold `bytes`.
fn class_of(bytes: usize) -> Option<usize> {
    CLASSES.iter().rposition(|class| class.object_bytes() >= bytes)
}

fn header_of(group: FrameNumber) -> &'static mut Header {
    let pointer = core::ptr::with_exposed_provenance_mut::<Header>(to_usize(group.address()));
    // SAFETY: the frame belongs to the tier, is reachable at its own address, and begins with a header that `add_group` wrote; the
    // tier is used under one lock and keeps no header reference across a call that makes another to the same group.
    unsafe { &mut *pointer }
}

/// The room of an object, in two parts where it lies across the border of two frames; the second is empty elsewhere.
fn parts_of(place: Place) -> (&'static mut [u8], &'static mut [u8]) {
    let header = header_of(place.group());
    let bytes = header.class().object_bytes();
    let start = HEADER_BYTES + place.index() * bytes;
    let (frame, offset) = (start / FRAME_SIZE, start % FRAME_SIZE);
    let first = bytes.min(FRAME_SIZE - offset);
    let second = header.frames.get(frame + 1).filter(|_| first < bytes);
    let rest = second.map_or(&mut [][..], |next| bytes_in(*next, 0, bytes - first));
    (bytes_in(header.frames[frame], offset, first), rest)
}

fn bytes_in(frame: FrameNumber, offset: usize, bytes: usize) -> &'static mut [u8] {
    let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(frame.address()) + offset);
    // SAFETY: `parts_of` asks for bytes of one object, which lie within a frame of the tier, apart from header and other objects,
    // and are used under the tier's lock.
    unsafe { core::slice::from_raw_parts_mut(pointer, bytes) }
}
