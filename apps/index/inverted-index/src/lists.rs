//! Lists of numbers in the pool. A list is a chain of slices, each twice as large as the one
//! before, up to 4 KiB. The last four bytes of a slice are the address of the next one. Appending
//! never copies a list, and short lists, which are the most frequent, take few bytes.
//!
//! A number is written in groups of seven bits, least significant first. The eighth bit is set in
//! all bytes but the last.

use crate::IndexError;
use crate::blocks::Blocks;
use crate::watch::Watch;

/// Bytes for numbers in the first slice of a list.
const FIRST_SLICE_BYTES: u32 = 8;
/// The number of times that slices double.
const LAST_LEVEL: u8 = 9;
/// Bytes of the address of the next slice.
const LINK_BYTES: usize = 4;

pub(crate) type Pool<W> = Blocks<u8, W>;

/// A list: its first slice, and the place where it continues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    first: u32,
    tail: Place,
}

/// A place in a list.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The next byte.
    at: u32,
    /// The end of its slice.
    end: u32,
    level: u8,
}

impl List {
    /// Makes an empty list.
    pub(crate) fn new<W: Watch>(pool: &mut Pool<W>) -> Result<Self, IndexError> {
        let tail = Place::in_new_slice(pool, 0)?;
        Ok(Self { first: tail.at, tail })
    }

    /// Appends a number.
    pub(crate) fn append<W: Watch>(&mut self, mut number: u64, pool: &mut Pool<W>) -> Result<(), IndexError> {
        loop {
            let seven = number.to_le_bytes()[0] & 0x7f;
            number >>= 7;
            let more = if number == 0 { 0 } else { 0x80 };
            self.append_byte(seven | more, pool)?;
            if number == 0 {
                return Ok(());
            }
        }
    }

    fn append_byte<W: Watch>(&mut self, byte: u8, pool: &mut Pool<W>) -> Result<(), IndexError> {
        if self.tail.at == self.tail.end {
            let next = Place::in_new_slice(pool, (self.tail.level + 1).min(LAST_LEVEL))?;
            pool.slice_mut(self.tail.end, LINK_BYTES).copy_from_slice(&next.at.to_le_bytes());
            self.tail = next;
        }
        *pool.get_mut(self.tail.at) = byte;
        self.tail.at += 1;
        Ok(())
    }
}

impl Place {
    fn in_new_slice<W: Watch>(pool: &mut Pool<W>, level: u8) -> Result<Self, IndexError> {
        let bytes = (FIRST_SLICE_BYTES << level) as usize + LINK_BYTES;
        Ok(Self::at_begin(pool.allocate(bytes)?, level))
    }

    fn at_begin(slice: u32, level: u8) -> Self {
        Self { at: slice, end: slice + (FIRST_SLICE_BYTES << level), level }
    }
}

/// Reads a list from its beginning. The list has no end mark, so the caller must know how many
/// numbers there are.
#[derive(Debug)]
pub(crate) struct Reader<'a, W> {
    pool: &'a Pool<W>,
    place: Place,
}

impl<'a, W: Watch> Reader<'a, W> {
    pub(crate) fn new(list: &List, pool: &'a Pool<W>) -> Self {
        Self { pool, place: Place::at_begin(list.first, 0) }
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.next_byte();
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
        }
    }

    fn next_byte(&mut self) -> u8 {
        if self.place.at == self.place.end {
            let mut link = [0; LINK_BYTES];
            link.copy_from_slice(self.pool.slice(self.place.end, LINK_BYTES));
            self.place = Place::at_begin(u32::from_le_bytes(link), (self.place.level + 1).min(LAST_LEVEL));
        }
        let byte = *self.pool.get(self.place.at);
        self.place.at += 1;
        byte
    }
}
