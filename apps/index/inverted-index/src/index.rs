//! Builds an index: interns terms in table and pool, and appends each occurrence to its term's
//! list.

use alloc::vec::Vec;

use crate::IndexError;
use crate::blocks::Blocks;
use crate::postings::{Posting, Record};
use crate::sorted::SortedIndex;
use crate::table::{self, Place, Table};
use crate::tokens::tokens;
use crate::watch::{Area, Unwatched, Watch};

/// An index that is being built.
#[derive(Debug)]
pub struct Index<W = Unwatched> {
    pub(crate) table: Table<W>,
    pub(crate) records: Blocks<Record, W>,
    pub(crate) pool: Blocks<u8, W>,
    pub(crate) watch: W,
    terms: u32,
    files: u32,
    postings: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self::watched_by(Unwatched)
    }
}

impl<W: Watch> Index<W> {
    /// Makes an empty index that reports its accesses to `watch`.
    #[must_use]
    pub fn watched_by(watch: W) -> Self {
        Self {
            table: Table::new(watch),
            records: Blocks::new(Area::Records, watch),
            pool: Blocks::new(Area::Pool, watch),
            watch,
            terms: 0,
            files: 0,
            postings: 0,
        }
    }

    /// Adds the next file.
    ///
    /// # Errors
    /// [`IndexError`]. The index then has a part of the file and must not be used.
    pub fn add_file(&mut self, text: &[u8]) -> Result<(), IndexError> {
        let file = self.files;
        self.files = file.checked_add(1).ok_or(IndexError::TooLarge)?;
        let mut tokens = tokens(text);
        let mut position = 0_u32;
        while let Some(token) = tokens.next_token() {
            self.watch.touched(Area::Text, token.start, token.term.len());
            let number = self.intern(token.term)?;
            self.records.get_mut(number).append(Posting { file, position }, &mut self.pool)?;
            self.postings += 1;
            position = position.checked_add(1).ok_or(IndexError::TooLarge)?;
        }
        Ok(())
    }

    /// Returns the number of different terms.
    #[must_use]
    pub fn terms(&self) -> u32 {
        self.terms
    }

    /// Returns the number of files.
    #[must_use]
    pub fn files(&self) -> u32 {
        self.files
    }

    /// Returns the number of occurrences of all terms.
    #[must_use]
    pub fn postings(&self) -> u64 {
        self.postings
    }

    /// Returns the bytes of table, records and pool.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.records.bytes() + self.pool.bytes()
    }

    /// Sorts the terms. No file can be added afterwards.
    ///
    /// # Errors
    /// [`IndexError::OutOfMemory`].
    pub fn sort(self) -> Result<SortedIndex<W>, IndexError> {
        SortedIndex::new(self)
    }

    /// Finds the record of `term`.
    pub(crate) fn find(&self, term: &[u8]) -> Option<&Record> {
        match self.place(table::hash(term), term)? {
            Place::Taken(record) => Some(self.records.get(record)),
            Place::Free(_) => None,
        }
    }

    /// Returns the text of a record's term.
    pub(crate) fn text(&self, number: u32) -> &[u8] {
        let record = self.records.get(number);
        self.pool.slice(record.text, record.length.into())
    }

    /// Returns the record of `term`, which is made if there is none.
    fn intern(&mut self, term: &[u8]) -> Result<u32, IndexError> {
        let hash = table::hash(term);
        self.table.reserve()?;
        match self.place(hash, term) {
            Some(Place::Taken(record)) => Ok(record),
            Some(Place::Free(bucket)) => {
                let record = self.new_record(term)?;
                self.table.take(bucket, hash, record);
                Ok(record)
            }
            None => unreachable!("a table with room for a record has buckets"),
        }
    }

    fn place(&self, hash: u64, term: &[u8]) -> Option<Place> {
        self.table.find(hash, |record| self.text(record) == term)
    }

    fn new_record(&mut self, term: &[u8]) -> Result<u32, IndexError> {
        let length = u8::try_from(term.len()).map_err(|_| IndexError::TooLarge)?;
        let text = self.pool.allocate(term.len())?;
        self.pool.slice_mut(text, term.len()).copy_from_slice(term);
        let record = Record::new(text, length, &mut self.pool)?;
        let number = self.records.allocate(1)?;
        *self.records.get_mut(number) = record;
        self.terms += 1;
        Ok(number)
    }

    /// Returns the numbers of all records, in the order in which they were made.
    pub(crate) fn record_numbers(&self) -> Result<Vec<u32>, IndexError> {
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(self.terms as usize).map_err(|_| IndexError::OutOfMemory)?;
        numbers.extend(0..self.terms);
        Ok(numbers)
    }
}
