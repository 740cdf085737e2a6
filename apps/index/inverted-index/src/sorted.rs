//! An index whose terms are in order, for queries and for the digest.

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::IndexError;
use crate::digest::Digest;
use crate::index::Index;
use crate::postings::{Files, Postings, Record};
use crate::watch::{Area, Unwatched, Watch};

/// A complete index.
#[derive(Debug)]
pub struct SortedIndex<W = Unwatched> {
    index: Index<W>,
    /// The terms' records in the order of their texts.
    by_text: Vec<u32>,
    /// The records with more postings first. Those with as many postings are in the order of their
    /// texts.
    by_frequency: Vec<u32>,
}

impl<W: Watch> SortedIndex<W> {
    pub(crate) fn new(index: Index<W>) -> Result<Self, IndexError> {
        let mut by_text = index.record_numbers()?;
        by_text.sort_unstable_by(|&one, &other| index.text(one).cmp(index.text(other)));
        let mut by_frequency = index.record_numbers()?;
        by_frequency.sort_unstable_by(|&one, &other| {
            let frequency = |number| Reverse(index.records.get(number).count);
            frequency(one).cmp(&frequency(other)).then_with(|| index.text(one).cmp(index.text(other)))
        });
        Ok(Self { index, by_text, by_frequency })
    }

    /// Returns the index with its counts of terms, files and postings.
    #[must_use]
    pub fn index(&self) -> &Index<W> {
        &self.index
    }

    /// Returns the bytes of memory that the index takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.bytes() + size_of_val(&self.by_text[..]) + size_of_val(&self.by_frequency[..])
    }

    /// Returns the terms in the order of their bytes, with their postings.
    pub fn terms(&self) -> impl Iterator<Item = (&[u8], Postings<'_, W>)> {
        self.records().map(|(number, record)| (self.index.text(number), Postings::new(record, &self.index.pool)))
    }

    /// Returns the postings of `term`, if it occurs.
    #[must_use]
    pub fn postings(&self, term: &[u8]) -> Option<Postings<'_, W>> {
        Some(Postings::new(self.index.find(term)?, &self.index.pool))
    }

    /// Returns the files in which `term` occurs, if it does, with the number of occurrences.
    #[must_use]
    pub fn files(&self, term: &[u8]) -> Option<Files<'_, W>> {
        Some(Files::new(self.index.find(term)?, &self.index.pool))
    }

    /// Returns the number of files in which both terms occur.
    #[must_use]
    pub fn files_with_both(&self, one: &[u8], other: &[u8]) -> u32 {
        let (Some(ones), Some(others)) = (self.files(one), self.files(other)) else { return 0 };
        let (mut ones, mut others) = (ones.map(|in_file| in_file.file), others.map(|in_file| in_file.file));
        let (mut next_one, mut next_other) = (ones.next(), others.next());
        let mut both = 0;
        while let (Some(one), Some(other)) = (next_one, next_other) {
            both += u32::from(one == other);
            if one <= other {
                next_one = ones.next();
            }
            if other <= one {
                next_other = others.next();
            }
        }
        both
    }

    /// Returns the term of a rank. The most frequent term has rank 0; terms of the same frequency
    /// are in the order of their bytes.
    #[must_use]
    pub fn by_frequency(&self, rank: u32) -> Option<&[u8]> {
        let rank = rank as usize;
        (rank < self.by_frequency.len()).then(|| self.index.text(self.ranked(&self.by_frequency, rank)))
    }

    /// Computes a digest of all terms and their postings. It depends only on the files and their
    /// order.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        for (number, record) in self.records() {
            digest.add_term(self.index.text(number), record.count);
            Postings::new(record, &self.index.pool).for_each(|posting| digest.add_posting(posting));
        }
        digest.value()
    }

    /// Returns the records in the order of their texts.
    fn records(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0..self.by_text.len()).map(|rank| {
            let number = self.ranked(&self.by_text, rank);
            (number, self.index.records.get(number))
        })
    }

    fn ranked(&self, order: &[u32], rank: usize) -> u32 {
        self.index.watch.touched(Area::Order, rank * size_of::<u32>(), size_of::<u32>());
        order[rank]
    }
}
