//! The hash table that finds the record of a term. It has open addressing with linear probing. A
//! bucket has a record's number and the upper half of the term's hash, so that most other terms are
//! skipped, and all terms are moved to a larger table, without reading their texts.

use alloc::vec::Vec;

use crate::IndexError;
use crate::watch::{Area, Watch};

/// Buckets of the first table.
const FEWEST_BUCKETS: usize = 1024;
/// The table doubles when so many eighths of its buckets are in use, as linear probing becomes slow
/// beyond that.
const FULL_EIGHTHS: usize = 6;

/// A bucket: the upper half of the hash in the upper half, the record's number plus one in the
/// lower half. An empty bucket is 0.
type Bucket = u64;

/// The table.
#[derive(Debug)]
pub(crate) struct Table<W> {
    /// Their number is zero or a power of two.
    buckets: Vec<Bucket>,
    taken: usize,
    growths: u32,
    watch: W,
}

/// The place of a term in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The record of the term.
    Taken(u32),
    /// The empty bucket for the term.
    Free(usize),
}

impl<W: Watch> Table<W> {
    pub(crate) fn new(watch: W) -> Self {
        Self { buckets: Vec::new(), taken: 0, growths: 0, watch }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Grows the table if it has no room for another record.
    pub(crate) fn reserve(&mut self) -> Result<(), IndexError> {
        if self.taken * 8 < self.buckets.len() * FULL_EIGHTHS {
            return Ok(());
        }
        let count = (self.buckets.len() * 2).max(FEWEST_BUCKETS);
        let mut larger = Self { buckets: Vec::new(), growths: self.growths + 1, ..*self };
        larger.buckets.try_reserve_exact(count).map_err(|_| IndexError::OutOfMemory)?;
        larger.buckets.resize(count, 0);
        for index in 0..self.buckets.len() {
            let bucket = self.bucket(index);
            if bucket != 0 {
                larger.move_here(bucket);
            }
        }
        *self = larger;
        Ok(())
    }

    /// Finds the record whose term has this hash and for which `is_it` returns true.
    /// [`Place::Free`] is valid until the table grows.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<Place> {
        let mut index = self.home(hash)?;
        loop {
            let bucket = self.bucket(index);
            if bucket == 0 {
                return Some(Place::Free(index));
            }
            if let Some(record) = record_of(bucket, hash).filter(|&record| is_it(record)) {
                return Some(Place::Taken(record));
            }
            index = self.behind(index);
        }
    }

    /// Puts a record into a free bucket.
    pub(crate) fn take(&mut self, index: usize, hash: u64, record: u32) {
        self.buckets[index] = (hash & !u64::from(u32::MAX)) | (u64::from(record) + 1);
        self.taken += 1;
    }

    /// Inserts a bucket of a smaller table.
    fn move_here(&mut self, bucket: Bucket) {
        let Some(mut index) = self.home(bucket) else { return };
        while self.bucket(index) != 0 {
            index = self.behind(index);
        }
        self.buckets[index] = bucket;
    }

    /// Returns the first bucket to probe. The upper half of the hash selects it, as a bucket does
    /// not keep the lower half.
    fn home(&self, hash: u64) -> Option<usize> {
        let mask = self.buckets.len().checked_sub(1)?;
        Some((hash >> 32) as usize & mask)
    }

    fn behind(&self, index: usize) -> usize {
        (index + 1) & (self.buckets.len() - 1)
    }

    fn bucket(&self, index: usize) -> Bucket {
        self.watch.touched(Area::Table(self.growths), index * size_of::<Bucket>(), size_of::<Bucket>());
        self.buckets[index]
    }
}

/// Returns the record in a bucket if its half of the hash is the same.
fn record_of(bucket: Bucket, hash: u64) -> Option<u32> {
    let is_alike = (bucket ^ hash) >> 32 == 0;
    let number = bucket & u64::from(u32::MAX);
    is_alike.then(|| u32::try_from(number - 1).ok()).flatten()
}

/// Computes FNV-1a of 64 bits (Fowler, Noll, Vo) and mixes its halves, as the upper half depends
/// too little on the last bytes.
pub(crate) fn hash(term: &[u8]) -> u64 {
    let hash = term
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
