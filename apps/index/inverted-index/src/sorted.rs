//! An index whose terms are in order: for looking up, for queries and for the digest.

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
    /// The same, terms with more postings first, and those with as many in the order of their
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

    /// What the index was built from, in metrics.
    #[must_use]
    pub fn index(&self) -> &Index<W> {
        &self.index
    }

    /// Bytes of memory that the index takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index.bytes() + size_of_val(&self.by_text[..]) + size_of_val(&self.by_frequency[..])
    }

    /// The terms in order, as bytes compare, and where each occurs.
    pub fn terms(&self) -> impl Iterator<Item = (&[u8], Postings<'_, W>)> {
        self.records().map(|(number, record)| (self.index.text(number), Postings::new(record, &self.index.pool)))
    }

    /// Where `term` occurs, if it does.
    #[must_use]
    pub fn postings(&self, term: &[u8]) -> Option<Postings<'_, W>> {
        Some(Postings::new(self.index.find(term)?, &self.index.pool))
    }

    /// In which files `term` occurs, if it does, and how often.
    #[must_use]
    pub fn files(&self, term: &[u8]) -> Option<Files<'_, W>> {
        Some(Files::new(self.index.find(term)?, &self.index.pool))
    }

    /// In how many files both terms occur.
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

    /// The term in this place when the most frequent come first; the lower in the alphabet before
    /// those that are as frequent.
    #[must_use]
    pub fn by_frequency(&self, rank: u32) -> Option<&[u8]> {
        let rank = rank as usize;
        (rank < self.by_frequency.len()).then(|| self.index.text(self.ranked(&self.by_frequency, rank)))
    }

    /// A digest of all terms and their postings; the same for the same files in the same order,
    /// however they lie in memory.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        for (number, record) in self.records() {
            digest.add_term(self.index.text(number), record.count);
            Postings::new(record, &self.index.pool).for_each(|posting| digest.add_posting(posting));
        }
        digest.value()
    }

    /// The records in the order of their texts.
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
