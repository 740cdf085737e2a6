//! Guest images: what is in one, once it has been checked.
//!
//! An image is a static ELF executable for guest-physical addresses between 1 MiB and 1 GiB, with
//! the note that names hermit-entry's version. The check reads at offsets, so the supervisor can do
//! it before it starts a VMM process, whatever the file's size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aerostat_abi::threads;
use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, to_usize};
use thiserror::Error;

use super::image_notes::{self, NoteError};
use super::layout::{GuestAddress, IDENTITY_END, LOW_END};

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: usize = 56;
const SECTION_BYTES: usize = 64;
/// More than any linker writes; bounds what a malicious file makes the monitor read.
const MOST_HEADERS: u16 = 256;

/// Bytes of a thread table.
const TABLE_BYTES: u64 = (threads::WORDS * size_of::<u64>()) as u64;

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const X86_64: u16 = 62;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const NOTE: u32 = 4;
const THREAD_LOCAL: u32 = 7;
const DYNAMIC_SYMBOLS: u32 = 11;

/// What is wrong with an image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// It can't be opened or read.
    #[error("can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is a directory, a device ...
    #[error("is not a regular file")]
    NotAFile,
    /// It does not begin like an ELF file.
    #[error("is not an ELF file")]
    NotElf,
    /// It is a 32-bit image.
    #[error("is not a 64-bit image")]
    Not64Bit,
    /// It is a big-endian image.
    #[error("is not little-endian")]
    BigEndian,
    /// It was built for another processor.
    #[error("is built for another processor (ELF machine {0}), not for x86-64")]
    WrongMachine(u16),
    /// It was linked to be relocated.
    #[error("is position-independent: link it statically at a fixed address")]
    PositionIndependent,
    /// It is an object file, a core dump ...
    #[error("is no executable (ELF type {0})")]
    NotExecutable(u16),
    /// It needs a dynamic linker.
    #[error("is linked dynamically: link it statically")]
    Dynamic,
    /// The file ends too early.
    #[error("is cut short: its {0} reach beyond the end of the file")]
    CutShort(&'static str),
    /// A table has an impossible size or place.
    #[error("is damaged: its {0} make no sense")]
    Damaged(&'static str),
    /// There is nothing to load.
    #[error("has nothing to load")]
    Empty,
    /// Loadable segments are not in the order of their addresses, or overlap.
    #[error("has segments that overlap or are not sorted by address")]
    Unsorted,
    /// It overlaps the place of boot information.
    #[error("begins at {0:#x}: the first MiB is for boot information")]
    TooLow(u64),
    /// It does not fit guest memory.
    #[error("is larger than memory: it ends at {}, the guest has {memory}", .end)]
    LargerThanMemory {
        /// Where the image ends, as a size.
        end: FrameCount,
        /// What the guest has.
        memory: FrameCount,
    },
    /// The first page tables do not reach it.
    #[error("ends at {0:#x}: the first page tables reach only 1 GiB")]
    TooHigh(u64),
    /// The entry point is in no segment.
    #[error("has its entry point {0:#x} outside its segments")]
    BadEntry(u64),
    /// There is no usable entry-version note.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// An image that passed the check, with what its loader needs.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) info: ImageInfo,
    /// Where its kernel keeps its thread table, within the image; `None` where it names no such
    /// place.
    pub(super) thread_table: Option<GuestAddress>,
    /// What to load, ascending and within [`ImageInfo::start`] and [`ImageInfo::end`].
    pub(super) loads: Vec<Load>,
    /// The image of thread-local variables.
    pub(super) thread_local: Option<ThreadLocal>,
}

/// A part of the file that is loaded; memory behind it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// The place in the file.
    pub(super) offset: u64,
    pub(super) address: GuestAddress,
    pub(super) bytes: u64,
}

/// Where thread-local variables are initialised from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadLocal {
    pub(super) start: u64,
    pub(super) file_bytes: u64,
    pub(super) bytes: u64,
    pub(super) align: u64,
}

/// Where an image lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// The first instruction.
    pub entry: u64,
}

impl ImageInfo {
    /// Returns whether words of so many bytes at `address` lie within the image.
    fn holds(&self, address: GuestAddress, bytes: u64) -> bool {
        let end = address.0.checked_add(bytes);
        address.0.is_multiple_of(8) && address.0 >= self.start && end.is_some_and(|end| end <= self.end)
    }

    /// The frames that the image occupies.
    #[must_use]
    pub const fn frames(&self) -> Range<FrameNumber> {
        FrameNumber::containing(self.start)..FrameNumber(self.end.div_ceil(FRAME_BYTES))
    }
}

/// Checks the image at `path` for a guest with `memory`.
///
/// # Errors
/// Returns what is wrong with the file; the message continues a sentence that begins with its name.
pub fn check_image(path: &Path, memory: FrameCount) -> Result<ImageInfo, ImageError> {
    check_file(&File::open(path)?, memory)
}

/// Does the same for an open file.
///
/// # Errors
/// The same.
pub fn check_file(file: &File, memory: FrameCount) -> Result<ImageInfo, ImageError> {
    Ok(read(file, memory)?.info)
}

/// Reads the headers of an image for a guest with `memory`, and checks them.
pub(super) fn read(file: &File, memory: FrameCount) -> Result<Image, ImageError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile);
    }
    let file = Bounded { file, bytes: metadata.len() };
    let header = Header::read(&file)?;
    check_sections(&file, &header)?;
    let segments = read_segments(&file, &header)?;
    if segments.iter().any(|segment| segment.kind == DYNAMIC) {
        return Err(ImageError::Dynamic);
    }
    let info = check_loads(&file, &segments, header.entry, memory)?;
    let thread_local = segments.iter().find(|segment| segment.kind == THREAD_LOCAL);
    if let Some(local) = thread_local {
        let end = local.end().ok_or(ImageError::Damaged("thread-local segment"))?;
        if local.address < info.start || end > info.end {
            return Err(ImageError::Damaged("thread-local segment"));
        }
    }
    let Some(note) = segments.iter().find(|segment| segment.kind == NOTE) else {
        return Err(NoteError::Missing.into());
    };
    if note.file_bytes > u64::from(u16::MAX) || !note.offset.is_multiple_of(4) {
        return Err(ImageError::Damaged("notes"));
    }
    let notes = image_notes::read(&file.read(note.offset, note.file_bytes, "notes")?, note.align)?;
    Ok(Image {
        info,
        thread_table: notes.thread_table.map(GuestAddress).filter(|&table| info.holds(table, TABLE_BYTES)),
        loads: segments.iter().filter(|segment| segment.kind == LOAD).map(Segment::load).collect(),
        thread_local: thread_local.map(Segment::thread_local),
    })
}

/// A file and the length that it had.
struct Bounded<'a> {
    file: &'a File,
    bytes: u64,
}

impl Bounded<'_> {
    fn has(&self, offset: u64, bytes: u64) -> bool {
        offset.checked_add(bytes).is_some_and(|end| end <= self.bytes)
    }

    /// Reads `bytes` bytes at `offset`: the caller has bounded `bytes`.
    fn read(&self, offset: u64, bytes: u64, what: &'static str) -> Result<Vec<u8>, ImageError> {
        if !self.has(offset, bytes) {
            return Err(ImageError::CutShort(what));
        }
        let mut buffer = vec![0; to_usize(bytes)];
        self.file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Reads a table of `count` headers of `size` bytes, which has to be aligned (gABI, chapter 4).
    fn table(&self, offset: u64, count: u16, size: usize, what: &'static str) -> Result<Vec<u8>, ImageError> {
        if count > MOST_HEADERS || !offset.is_multiple_of(8) {
            return Err(ImageError::Damaged(what));
        }
        self.read(offset, u64::from(count) * size as u64, what)
    }
}

/// The fields of the ELF header that the check needs.
struct Header {
    entry: u64,
    segments: (u64, u16),
    sections: (u64, u16),
}

impl Header {
    fn read(file: &Bounded<'_>) -> Result<Self, ImageError> {
        if !file.has(0, 4) || file.read(0, 4, "header")? != *b"\x7fELF" {
            return Err(ImageError::NotElf);
        }
        let bytes = file.read(0, HEADER_BYTES as u64, "header")?;
        if bytes[4] != CLASS_64 {
            return Err(ImageError::Not64Bit);
        }
        if bytes[5] != LITTLE_ENDIAN {
            return Err(ImageError::BigEndian);
        }
        let (kind, machine) = (u16_at(&bytes, 16), u16_at(&bytes, 18));
        if machine != X86_64 {
            return Err(ImageError::WrongMachine(machine));
        }
        match kind {
            EXECUTABLE => {}
            POSITION_INDEPENDENT => return Err(ImageError::PositionIndependent),
            other => return Err(ImageError::NotExecutable(other)),
        }
        let header = Self {
            entry: u64_at(&bytes, 24),
            segments: (u64_at(&bytes, 32), u16_at(&bytes, 56)),
            sections: (u64_at(&bytes, 40), u16_at(&bytes, 60)),
        };
        if header.segments.1 > 0 && usize::from(u16_at(&bytes, 54)) != SEGMENT_BYTES {
            return Err(ImageError::Damaged("program headers"));
        }
        if header.sections.1 > 0 && usize::from(u16_at(&bytes, 58)) != SECTION_BYTES {
            return Err(ImageError::Damaged("section headers"));
        }
        Ok(header)
    }
}

/// A program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    bytes: u64,
    align: u64,
}

impl Segment {
    fn end(&self) -> Option<u64> {
        self.address.checked_add(self.bytes)
    }

    fn load(&self) -> Load {
        Load { offset: self.offset, address: GuestAddress(self.address), bytes: self.file_bytes }
    }

    fn thread_local(&self) -> ThreadLocal {
        let Self { address: start, file_bytes, bytes, align, .. } = *self;
        ThreadLocal { start, file_bytes, bytes, align }
    }
}

fn read_segments(file: &Bounded<'_>, header: &Header) -> Result<Vec<Segment>, ImageError> {
    let (offset, count) = header.segments;
    let table = file.table(offset, count, SEGMENT_BYTES, "program headers")?;
    let segment = |bytes: &[u8]| Segment {
        kind: u32_at(bytes, 0),
        offset: u64_at(bytes, 8),
        address: u64_at(bytes, 16),
        file_bytes: u64_at(bytes, 32),
        bytes: u64_at(bytes, 40),
        align: u64_at(bytes, 48),
    };
    Ok(table.chunks_exact(SEGMENT_BYTES).map(segment).collect())
}

/// Refuses an image that expects symbols to be found at run time.
fn check_sections(file: &Bounded<'_>, header: &Header) -> Result<(), ImageError> {
    let (offset, count) = header.sections;
    let table = file.table(offset, count, SECTION_BYTES, "section headers")?;
    if table.chunks_exact(SECTION_BYTES).any(|section| u32_at(section, 4) == DYNAMIC_SYMBOLS) {
        return Err(ImageError::Dynamic);
    }
    Ok(())
}

fn check_loads(
    file: &Bounded<'_>,
    segments: &[Segment],
    entry: u64,
    memory: FrameCount,
) -> Result<ImageInfo, ImageError> {
    let loads = || segments.iter().filter(|segment| segment.kind == LOAD);
    let start = loads().next().ok_or(ImageError::Empty)?.address;
    if start < LOW_END {
        return Err(ImageError::TooLow(start));
    }
    let mut end = start;
    for load in loads() {
        if !file.has(load.offset, load.file_bytes) {
            return Err(ImageError::CutShort("segments"));
        }
        if load.file_bytes > load.bytes {
            return Err(ImageError::Damaged("segments"));
        }
        if load.address < end {
            return Err(ImageError::Unsorted);
        }
        end = load.end().ok_or(ImageError::Damaged("segments"))?;
    }
    if end > memory.bytes() {
        return Err(ImageError::LargerThanMemory { end: FrameCount::from_bytes_ceil(end), memory });
    }
    if end > IDENTITY_END {
        return Err(ImageError::TooHigh(end));
    }
    // The sum can't overflow: every segment's end is below `end`.
    if !loads().any(|load| (load.address..load.address + load.bytes).contains(&entry)) {
        return Err(ImageError::BadEntry(entry));
    }
    Ok(ImageInfo { start, end, entry })
}

/// Reads a little-endian number in a header whose size is known to hold it.
fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    std::array::from_fn(|place| bytes[offset + place])
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, offset))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
