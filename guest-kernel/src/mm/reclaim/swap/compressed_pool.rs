//! The compressed pool: evicted pages, LZ4-compressed, packed into groups of frames.
//!
//! A group is one to three frames, wherever they lie, that hold objects of one *class* as if they
//! followed each other: 15 small ones in a frame, or four of three quarters of a page in three. In
//! front is a header of 64 bytes: class, which places are used, the group's frames, and the links
//! of two lists. An object is its length and the page it belongs to (eight bytes together) and the
//! compressed bytes; it may lie across the border of two frames. So a page is found from its
//! [`Place`] alone, and storing or dropping one is O(1). The idea is zsmalloc's (Linux). Text
//! compresses to 50 to 70 % of a page: without groups of several frames, most of it would have to
//! stay. What does not compress to three quarters is not worth keeping here.
//!
//! One list holds the groups of a class that have room, the other all groups by age: the oldest is
//! the next to be written to disk, as it is, where there is one
//! ([`CompressedPool::begin_leaving`]). It comes back as it is, too: because an object names its
//! page, the page table entries of all pages in a group can be found from the group
//! ([`CompressedPool::pages`]).
//!
//! Every frame of the compressed pool counts as swap headroom, so no zspage may keep more frames
//! than pages: one that loses pages is packed in place into as many frames as it has pages
//! ([`CompressedPool::pack`]). Only the zspage of a class that is being filled is sparse.
//!
//! Storing allocates nothing but, at times, the frames of a group for a class that is full; and it
//! needs no memory to drop an object.
#![allow(unsafe_code, reason = "objects are laid out in raw frames")]

use aerostat_abi::units::{FRAME_SIZE, FrameCount, FrameNumber, to_usize};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::mm::block::{Block, BlockSize, Contents};

const HEADER_BYTES: usize = 64;
/// Length and page of an object.
const HEAD_BYTES: usize = 8;
/// Bits of the head that are the length; the rest are the page's address, all of which lie in the
/// lower half.
const LENGTH_BITS: u32 = 16;
/// Frames of a group at most.
pub(crate) const MOST_FRAMES: usize = 3;
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
const CLASSES: [Class; 20] = [
    Class { frames: 2, objects: 2 },
    Class { frames: 1, objects: 1 },
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
    Class { frames: 1, objects: 15 },
];

/// The first classes hold only packed zspages, one page in each frame. Their number of frames is
/// [`PACKED_CLASSES`] less their index.
const PACKED_CLASSES: usize = 2;

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
        assert!(frames <= MOST_FRAMES && objects < 1 << INDEX_BITS);
        assert!(class == 0 || CLASSES[class].object_bytes() < CLASSES[class - 1].object_bytes());
        class += 1;
    }
};

/// Where an object is: the number of its group's first frame, and its place in the group. 28 bits
/// of frame number are 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) u32);

impl Place {
    /// Place `index` of a group; `None` when the number of the group's first frame is too large.
    pub(crate) fn new(group: FrameNumber, index: usize) -> Option<Self> {
        let frame = u32::try_from(group.0).ok().filter(|frame| *frame < 1 << (32 - INDEX_BITS))?;
        Some(Self(frame << INDEX_BITS | u32::try_from(index).ok()?))
    }

    fn group(self) -> FrameNumber {
        FrameNumber(u64::from(self.0 >> INDEX_BITS))
    }

    /// The object's number in its group.
    pub(crate) fn index(self) -> usize {
        to_usize(u64::from(self.0)) % (1 << INDEX_BITS)
    }
}

/// The head of a group.
#[derive(Debug)]
#[repr(C)]
struct Header {
    /// Where it is one, in [`CLASSES`]: what comes from a disk is checked first.
    class: u8,
    /// Not zero while the group is being written to disk: nothing is added then, and it is in
    /// neither list.
    leaving: u8,
    used: u16,
    /// Neighbours among the groups of the class with room.
    with_room: Links,
    /// Neighbours among all groups, by age.
    by_age: Links,
    /// The group's frames, this one first.
    frames: [u32; MOST_FRAMES],
    /// The indexes whose objects are laid out, a bit each: an object's position is its rank among
    /// them. A packed zspage's objects keep the indexes that page table entries have.
    laid_out: u16,
}

/// Neighbours in a list of groups, by their first frames; 0 for none, as frame 0 is never handed
/// out.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Links {
    previous: u64,
    next: u64,
}

/// Which of its two lists a group is put into or taken out of.
type List = fn(&mut Header) -> &mut Links;

const WITH_ROOM: List = |header| &mut header.with_room;
const BY_AGE: List = |header| &mut header.by_age;

/// The ends of a list of groups.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u64,
    last: u64,
}

impl Ends {
    const EMPTY: Self = Self { first: 0, last: 0 };

    /// Adds a group at the end.
    fn append(&mut self, group: FrameNumber, list: List) {
        *list(header_of(group)) = Links { previous: self.last, next: 0 };
        match self.last {
            0 => self.first = group.0,
            last => list(header_of(FrameNumber(last))).next = group.0,
        }
        self.last = group.0;
    }

    fn remove(&mut self, group: FrameNumber, list: List) {
        let Links { previous, next } = *list(header_of(group));
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

impl Header {
    fn class(&self) -> Class {
        CLASSES[usize::from(self.class)]
    }

    fn is_full(&self) -> bool {
        self.used.count_ones() as usize == self.class().objects
    }

    /// Whether it holds fewer pages than frames.
    fn is_sparse(&self) -> bool {
        (self.used.count_ones() as usize) < self.class().frames
    }

    /// The group's frames.
    fn frames(&self) -> Zspage {
        let frames = self.frames.map(|frame| FrameNumber(u64::from(frame)));
        Zspage { frames, count: self.class().frames }
    }
}

/// The frames of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zspage {
    frames: [FrameNumber; MOST_FRAMES],
    count: usize,
}

impl Zspage {
    /// The frames, the one with the header first.
    pub(crate) fn frames(&self) -> &[FrameNumber] {
        &self.frames[..self.count]
    }
}

/// What the compressed pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompressedPoolStatistics {
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

/// The compressed pool.
#[derive(Debug)]
pub(crate) struct CompressedPool {
    /// Groups with room, by class.
    with_room: [Ends; CLASSES.len()],
    /// All groups but those that are leaving, the oldest first.
    by_age: Ends,
    statistics: CompressedPoolStatistics,
    workspace: Workspace,
}

/// What compression needs beside the page, made once: the way out of memory allocates nothing.
struct Workspace {
    table: CompressTable,
    /// An object, as it is stored.
    object: [u8; HEAD_BYTES + OUTPUT_BYTES],
}

impl core::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Workspace")
    }
}

impl CompressedPool {
    /// An empty compressed pool.
    pub(crate) const fn new() -> Self {
        Self {
            with_room: [Ends::EMPTY; CLASSES.len()],
            by_age: Ends::EMPTY,
            statistics: CompressedPoolStatistics { pages: 0, frames: FrameCount::ZERO },
            workspace: Workspace { table: CompressTable::small(), object: [0; HEAD_BYTES + OUTPUT_BYTES] },
        }
    }

    pub(crate) fn statistics(&self) -> CompressedPoolStatistics {
        self.statistics
    }

    /// Compresses a page, whose address is `address`, and keeps it. `frame` is asked for more
    /// frames when the page's class has no room; `free` takes back what did not suffice.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was kept then.
    pub(crate) fn store(
        &mut self,
        address: u64,
        page: &[u8; FRAME_SIZE],
        frame: impl FnMut() -> Option<Block>,
        free: impl FnMut(Block),
    ) -> Result<Place, StoreError> {
        let (head, body) = self.workspace.object.split_at_mut(HEAD_BYTES);
        let length =
            compress_into_with_table(page, body, &mut self.workspace.table).map_err(|_| StoreError::Incompressible)?;
        head.copy_from_slice(&(address << LENGTH_BITS | length as u64).to_le_bytes());
        let class = class_of(HEAD_BYTES + length).ok_or(StoreError::Incompressible)?;
        if self.with_room[class].first == 0 {
            self.add_zspage(class, frame, free)?;
        }
        let group = FrameNumber(self.with_room[class].first);
        let header = header_of(group);
        let index = to_usize(u64::from(header.used.trailing_ones()));
        let place = Place::new(group, index).ok_or(StoreError::NoFrame)?;
        header.used |= 1 << index;
        if header.is_full() {
            self.with_room[class].remove(group, WITH_ROOM);
        }
        let (first, second) = parts_of(place);
        let object = &self.workspace.object[..HEAD_BYTES + length];
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
        let (length, _) = head_of(object);
        object
            .get(HEAD_BYTES..HEAD_BYTES + length)
            .is_some_and(|bytes| matches!(decompress_into(bytes, page), Ok(FRAME_SIZE)))
    }

    /// Forgets the page kept at `place`; the frames of a group that is empty thereby are given
    /// back.
    pub(crate) fn drop_page(&mut self, place: Place, give_back: impl FnMut(Block)) {
        let group = place.group();
        let header = header_of(group);
        debug_assert!(header.used & 1 << place.index() != 0, "{place:?} holds no page");
        let was_full = header.is_full();
        header.used &= !(1 << place.index());
        self.statistics.pages -= 1;
        if header.leaving != 0 {
            return; // the disk still reads it
        }
        let (class, is_empty) = (usize::from(header.class), header.used == 0);
        if is_empty {
            if !was_full {
                self.with_room[class].remove(group, WITH_ROOM);
            }
            self.by_age.remove(group, BY_AGE);
            self.give_up(group, give_back);
        } else if header.is_sparse() {
            if !was_full {
                self.with_room[class].remove(group, WITH_ROOM);
            }
            self.pack(group, give_back);
        } else if was_full {
            self.with_room[class].append(group, WITH_ROOM);
        }
    }

    /// Packs the pages of a sparse zspage, which is in no list of zspages with room, into its first
    /// frames, one in each, and gives the others back. Nothing is allocated, and the pages keep
    /// their places. In ascending order, no object is written over one that is still to be moved.
    fn pack(&mut self, group: FrameNumber, mut give_back: impl FnMut(Block)) {
        let header = header_of(group);
        let (used, old, frames) = (header.used, header.class(), header.frames());
        let count = used.count_ones() as usize;
        let laid_out = core::mem::replace(&mut header.laid_out, used);
        header.class = u8::try_from(PACKED_CLASSES - count).unwrap_or(0);
        let new_bytes = header.class().object_bytes();
        for index in (0..1 << INDEX_BITS).filter(|index| used & 1 << index != 0) {
            let object = &mut self.workspace.object[..old.object_bytes()];
            let (first, second) = object_at(frames, old.object_bytes(), rank(laid_out, index));
            object[..first.len()].copy_from_slice(first);
            object[first.len()..].copy_from_slice(second);
            // What is cut off is unused: a packed zspage has larger objects than any was stored in.
            let object = &object[..old.object_bytes().min(new_bytes)];
            let (first, second) = object_at(frames, new_bytes, rank(used, index));
            let split = object.len().min(first.len());
            first[..split].copy_from_slice(&object[..split]);
            second[..object.len() - split].copy_from_slice(&object[split..]);
        }
        for frame in &frames.frames()[count..] {
            give_back(Block::from_number(*frame, BlockSize::Frame, Contents::Unknown));
        }
        let freed = FrameCount((frames.count - count) as u64);
        self.statistics.frames = self.statistics.frames.saturating_sub(freed);
    }

    /// Takes the oldest group out of use, to be written to disk: its pages can still be loaded and
    /// dropped. Ends with [`Self::left`] or [`Self::stay`].
    pub(crate) fn begin_leaving(&mut self) -> Option<Zspage> {
        let group = Some(FrameNumber(self.by_age.first)).filter(|group| group.0 != 0)?;
        let header = header_of(group);
        header.leaving = 1;
        let (class, is_full, frames) = (usize::from(header.class), header.is_full(), header.frames());
        if !is_full {
            self.with_room[class].remove(group, WITH_ROOM);
        }
        self.by_age.remove(group, BY_AGE);
        Some(frames)
    }

    /// A leaving group is on disk: its frames are free, its pages are the compressed pool's no
    /// more.
    pub(crate) fn left(&mut self, group: FrameNumber, give_back: impl FnMut(Block)) {
        self.statistics.pages -= u64::from(header_of(group).used.count_ones());
        self.give_up(group, give_back);
    }

    /// A leaving group could not be written: it is in use again, unless nothing is left in it.
    pub(crate) fn stay(&mut self, group: FrameNumber, give_back: impl FnMut(Block)) {
        let header = header_of(group);
        header.leaving = 0;
        if header.used == 0 {
            self.give_up(group, give_back);
        } else {
            if header.is_sparse() {
                self.pack(group, give_back);
            }
            self.link(group);
        }
    }

    /// Pages in a group, a bit each, and the group's frames.
    pub(crate) fn used(&self, group: FrameNumber) -> (u16, usize) {
        let header = header_of(group);
        (header.used, header.class().frames)
    }

    /// The pages in a group: each one's place and address.
    pub(crate) fn pages(&self, group: FrameNumber) -> impl Iterator<Item = (Place, u64)> + use<> {
        let header = header_of(group);
        let used = header.used;
        (0..1 << INDEX_BITS).filter(move |index| used & 1 << index != 0).filter_map(move |index| {
            let place = Place::new(group, index)?;
            let (first, second) = parts_of(place);
            let mut head = [0; HEAD_BYTES];
            for (byte, from) in head.iter_mut().zip(first.iter().chain(second.iter())) {
                *byte = *from;
            }
            Some((place, head_of(&head).1))
        })
    }

    /// Takes a group back that was written to disk and read into `blocks`. Of its pages, only those
    /// in `wanted` are kept, and all of these must be there: `is_due` is asked about each one's
    /// number in the group and its address. Returns the group's first frame; otherwise nothing has
    /// changed, and the blocks are still the caller's.
    pub(crate) fn adopt(
        &mut self,
        blocks: &mut [Option<Block>],
        wanted: u16,
        is_due: impl Fn(usize, u64) -> bool,
        give_back: impl FnMut(Block),
    ) -> Option<FrameNumber> {
        let group = blocks.first()?.as_ref()?.first();
        let header = header_of(group);
        let class = CLASSES.get(usize::from(header.class))?;
        let there = header.used & header.laid_out;
        let ends_within = |used: u16| rank(header.laid_out, to_usize(u64::from(used.ilog2()))) < class.objects;
        if class.frames != blocks.len() || wanted == 0 || there & wanted != wanted || !ends_within(wanted) {
            return None;
        }
        for (frame, block) in header.frames.iter_mut().zip(&*blocks) {
            *frame = u32::try_from(block.as_ref()?.first().0).ok()?;
        }
        (header.used, header.leaving) = (wanted, 0);
        if !self.pages(group).all(|(place, page)| is_due(place.index(), page)) {
            return None;
        }
        self.statistics.pages += u64::from(wanted.count_ones());
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(blocks.len() as u64));
        for block in blocks.iter_mut().filter_map(Option::take) {
            let _ = block.into_number(); // the group's header knows it
        }
        if header_of(group).is_sparse() {
            self.pack(group, give_back);
        }
        self.link(group);
        Some(group)
    }

    /// Makes an empty group, of all the frames that its class needs or none.
    fn add_zspage(
        &mut self,
        class: usize,
        mut frame: impl FnMut() -> Option<Block>,
        mut free: impl FnMut(Block),
    ) -> Result<(), StoreError> {
        let mut frames = [0; MOST_FRAMES];
        let count = CLASSES[class].frames;
        for place in 0..count {
            let Some(number) = frame().and_then(|block| u32::try_from(block.into_number().0).ok()) else {
                for frame in &frames[..place] {
                    free(Block::from_number(FrameNumber(u64::from(*frame)), BlockSize::Frame, Contents::Unknown));
                }
                return Err(StoreError::NoFrame);
            };
            frames[place] = number;
        }
        let group = FrameNumber(u64::from(frames[0]));
        let (with_room, by_age) = (Links::default(), Links::default());
        let class = u8::try_from(class).map_err(|_| StoreError::NoFrame)?;
        *header_of(group) = Header { class, leaving: 0, used: 0, with_room, by_age, frames, laid_out: u16::MAX };
        self.link(group);
        self.statistics.frames = self.statistics.frames.saturating_add(FrameCount(count as u64));
        Ok(())
    }

    /// Puts a group into the lists where it belongs, as the youngest.
    fn link(&mut self, group: FrameNumber) {
        let header = header_of(group);
        let (class, is_full) = (usize::from(header.class), header.is_full());
        if !is_full {
            self.with_room[class].append(group, WITH_ROOM);
        }
        self.by_age.append(group, BY_AGE);
    }

    fn give_up(&mut self, group: FrameNumber, mut give_back: impl FnMut(Block)) {
        let frames = header_of(group).frames();
        self.statistics.frames = self.statistics.frames.saturating_sub(FrameCount(frames.count as u64));
        for frame in frames.frames() {
            give_back(Block::from_number(*frame, BlockSize::Frame, Contents::Unknown));
        }
    }
}

/// The class with the smallest objects that hold `bytes`.
fn class_of(bytes: usize) -> Option<usize> {
    let class = CLASSES.iter().rposition(|class| class.object_bytes() >= bytes);
    class.filter(|class| *class >= PACKED_CLASSES)
}

/// Length and page of an object.
fn head_of(object: &[u8]) -> (usize, u64) {
    let head = object.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (to_usize(head & ((1 << LENGTH_BITS) - 1)), head >> LENGTH_BITS)
}

fn header_of(group: FrameNumber) -> &'static mut Header {
    let pointer = core::ptr::with_exposed_provenance_mut::<Header>(to_usize(group.address()));
    // SAFETY: the frame belongs to the compressed pool, is reachable at its own address, and begins
    // with a header that `add_zspage` wrote; the compressed pool is used under one lock and keeps
    // no header reference across a call that makes another to the same group.
    unsafe { &mut *pointer }
}

/// The room of an object, in two parts where it lies across the border of two frames; the second is
/// empty elsewhere.
fn parts_of(place: Place) -> (&'static mut [u8], &'static mut [u8]) {
    let header = header_of(place.group());
    object_at(header.frames(), header.class().object_bytes(), rank(header.laid_out, place.index()))
}

/// The position of the object `index` among those that are laid out.
fn rank(laid_out: u16, index: usize) -> usize {
    (laid_out & ((1 << index) - 1)).count_ones() as usize
}

/// The room of the object at a position, where objects have so many bytes; in two parts likewise.
fn object_at(frames: Zspage, bytes: usize, position: usize) -> (&'static mut [u8], &'static mut [u8]) {
    let start = HEADER_BYTES + position * bytes;
    let (frame, offset) = (start / FRAME_SIZE, start % FRAME_SIZE);
    let first = bytes.min(FRAME_SIZE - offset);
    let second = frames.frames().get(frame + 1).filter(|_| first < bytes);
    let rest = second.map_or(&mut [][..], |next| bytes_in(*next, 0, bytes - first));
    (bytes_in(frames.frames[frame], offset, first), rest)
}

fn bytes_in(frame: FrameNumber, offset: usize, bytes: usize) -> &'static mut [u8] {
    let pointer = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(frame.address()) + offset);
    // SAFETY: `parts_of` asks for bytes of one object, which lie within a frame of the compressed
    // pool, apart from header and other objects, and are used under the compressed pool's lock.
    unsafe { core::slice::from_raw_parts_mut(pointer, bytes) }
}
