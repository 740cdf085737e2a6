//! The record of a term: its text, and two lists of the places where it occurs.
//!
//! * The list of files has, for each file but the last, twice the difference to the file before,
//!   plus one if the term occurs there only once. Otherwise the number of occurrences follows. The
//!   entry of the last file is in the [`Record`], as it still changes.
//! * The list of positions has the positions in each file: the first as it is, the others as
//!   differences.
//!
//! So a query for files reads no positions, which are most of an index.

use crate::IndexError;
use crate::lists::{List, Pool, Reader};
use crate::watch::Watch;

/// A term.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    /// The beginning of its text in the pool.
    pub(crate) text: u32,
    /// Bytes of its text.
    pub(crate) length: u8,
    /// The number of its postings.
    pub(crate) count: u32,
    /// The number of files in which it occurs.
    files: u32,
    last_file: u32,
    /// The file before the last, from whose number the difference is counted.
    file_before: u32,
    /// The number of postings in the last file.
    count_in_file: u32,
    /// The position of the last posting.
    last_position: u32,
    file_list: List,
    position_list: List,
}

/// An occurrence of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Number of the file.
    pub file: u32,
    /// Terms before this one in the file.
    pub position: u32,
}

impl Record {
    /// Makes a record without postings for a term whose text is already in the pool.
    pub(crate) fn new<W: Watch>(text: u32, length: u8, pool: &mut Pool<W>) -> Result<Self, IndexError> {
        let (file_list, position_list) = (List::new(pool)?, List::new(pool)?);
        Ok(Self { text, length, file_list, position_list, ..Self::default() })
    }

    /// Appends a posting, which must come after all others.
    pub(crate) fn append<W: Watch>(&mut self, posting: Posting, pool: &mut Pool<W>) -> Result<(), IndexError> {
        let count = self.count.checked_add(1).ok_or(IndexError::TooLarge)?;
        if self.count == 0 || posting.file != self.last_file {
            self.begin_file(posting.file, pool)?;
        }
        self.position_list.append((posting.position - self.last_position).into(), pool)?;
        self.last_position = posting.position;
        self.count_in_file += 1;
        self.count = count;
        Ok(())
    }

    fn begin_file<W: Watch>(&mut self, file: u32, pool: &mut Pool<W>) -> Result<(), IndexError> {
        if self.count > 0 {
            let is_once = self.count_in_file == 1;
            let difference = self.last_file - self.file_before;
            self.file_list.append(u64::from(difference) << 1 | u64::from(is_once), pool)?;
            if !is_once {
                self.file_list.append(self.count_in_file.into(), pool)?;
            }
            self.file_before = self.last_file;
        }
        self.last_file = file;
        self.files += 1;
        (self.count_in_file, self.last_position) = (0, 0);
        Ok(())
    }
}

/// The files in which a term occurs, in order.
#[derive(Debug)]
pub struct Files<'a, W> {
    list: Reader<'a, W>,
    left: u32,
    file: u32,
    /// The last file, which the list does not have.
    last: InFile,
}

/// How often a term occurs in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFile {
    /// Number of the file.
    pub file: u32,
    /// Postings in it, at least one.
    pub count: u32,
}

impl<'a, W: Watch> Files<'a, W> {
    pub(crate) fn new(record: &Record, pool: &'a Pool<W>) -> Self {
        let last = InFile { file: record.last_file, count: record.count_in_file };
        Self { list: Reader::new(&record.file_list, pool), left: record.files, file: 0, last }
    }
}

impl<W: Watch> Iterator for Files<'_, W> {
    type Item = InFile;

    fn next(&mut self) -> Option<InFile> {
        self.left = self.left.checked_sub(1)?;
        if self.left == 0 {
            return Some(self.last);
        }
        let number = self.list.next();
        self.file += narrow(number >> 1);
        let count = if number & 1 == 0 { narrow(self.list.next()) } else { 1 };
        Some(InFile { file: self.file, count })
    }
}

/// The postings of a term, in order.
#[derive(Debug)]
pub struct Postings<'a, W> {
    files: Files<'a, W>,
    positions: Reader<'a, W>,
    /// The current file, and the number of its postings that are left.
    current: InFile,
    position: u32,
}

impl<'a, W: Watch> Postings<'a, W> {
    pub(crate) fn new(record: &Record, pool: &'a Pool<W>) -> Self {
        let positions = Reader::new(&record.position_list, pool);
        Self { files: Files::new(record, pool), positions, current: InFile { file: 0, count: 0 }, position: 0 }
    }
}

impl<W: Watch> Iterator for Postings<'_, W> {
    type Item = Posting;

    fn next(&mut self) -> Option<Posting> {
        if self.current.count == 0 {
            self.current = self.files.next()?;
            self.position = 0;
        }
        self.current.count -= 1;
        self.position += narrow(self.positions.next());
        Some(Posting { file: self.current.file, position: self.position })
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("lists have differences of numbers of 32 bits")
}
