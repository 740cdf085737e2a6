//! Records, sorted in place by an algorithm for more records than memory holds.
//!
//! Passes over all records are expensive when memory is short. Quicksort makes one each time that
//! the records are twice as many as fit. So the first pass sorts by the first byte of the key: it
//! brings every record into one of 256 buckets (American flag sort: McIlroy, Bostic, McIlroy,
//! 1993), and works at 256 places that each move through neighbouring pages. The buckets are then
//! sorted one after the other, each in a few MiB. That is two passes, as long as memory holds the
//! pages of those 256 places.

use alloc::vec::Vec;

/// Values of a key's first byte.
const BUCKETS: usize = 256;

/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = size_of::<Record>();

/// A record, which is sorted by its key.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Record {
    key: u64,
    /// The record's number when it was made, from which the key can be computed again.
    number: u64,
}

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    records: Vec<Record>,
    /// For each byte, the number of records whose keys begin with it.
    counts: [usize; BUCKETS],
    capacity: usize,
}

/// The result of a verification.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    /// The number of bytes of right records.
    pub(crate) verified_bytes: u64,
    /// The number of wrong records.
    pub(crate) errors: u64,
    /// The sum of all keys, each multiplied by its place.
    pub(crate) checksum: u64,
}

impl Records {
    /// Allocates memory for so many bytes of records; `None` if there is none.
    pub(crate) fn with_room(bytes: usize) -> Option<Self> {
        let capacity = bytes / RECORD_BYTES;
        let mut records = Vec::new();
        records.try_reserve_exact(capacity).ok()?;
        Some(Self { records, counts: [0; BUCKETS], capacity })
    }

    pub(crate) fn count(&self) -> usize {
        self.records.len()
    }

    /// Makes the records of `seed`, and counts them by bucket, which saves a pass.
    pub(crate) fn make(&mut self, seed: u64) {
        self.records.clear();
        self.counts = [0; BUCKETS];
        for number in 0..self.capacity as u64 {
            let record = Record { key: key(seed, number), number };
            self.counts[bucket(&record)] += 1;
            self.records.push(record);
        }
    }

    /// Sorts the records by key. Calls `progress` from time to time with per cents.
    pub(crate) fn sort(&mut self, progress: impl Fn(usize)) {
        progress(0);
        self.distribute();
        let mut rest = &mut self.records[..];
        for (bucket, &count) in self.counts.iter().enumerate() {
            if bucket % 16 == 0 {
                progress(50 + bucket * 50 / BUCKETS);
            }
            let (records, behind) = rest.split_at_mut(count);
            records.sort_unstable_by_key(|record| record.key);
            rest = behind;
        }
    }

    /// Moves every record into its bucket. A record in the wrong bucket is swapped with the one at
    /// the next place of its own bucket, and so on, until a record arrives that belongs to the
    /// place of the first.
    fn distribute(&mut self) {
        let mut ends = [0; BUCKETS];
        let mut next = [0; BUCKETS];
        let mut end = 0;
        for (bucket, &count) in self.counts.iter().enumerate() {
            next[bucket] = end;
            end += count;
            ends[bucket] = end;
        }
        for home in 0..BUCKETS {
            while next[home] < ends[home] {
                let place = next[home];
                let mut record = self.records[place];
                while bucket(&record) != home {
                    let away = &mut next[bucket(&record)];
                    core::mem::swap(&mut record, &mut self.records[*away]);
                    *away += 1;
                }
                self.records[place] = record;
                next[home] += 1;
            }
        }
    }

    /// Checks that every record has the key of its number, a number below the count of records, and
    /// a key above the one before. Keys of different numbers differ, so each record is then there
    /// exactly once.
    pub(crate) fn verify(&self, seed: u64) -> Verdict {
        let mut verdict = Verdict::default();
        let mut before = None;
        for (place, record) in (0_u64..).zip(&self.records) {
            let is_made = record.number < self.records.len() as u64 && record.key == key(seed, record.number);
            let is_right = is_made && before < Some(record.key);
            verdict.errors += u64::from(!is_right);
            verdict.checksum = verdict.checksum.wrapping_add(record.key.wrapping_mul(place));
            before = Some(record.key);
        }
        verdict.verified_bytes = (self.records.len() as u64 - verdict.errors) * RECORD_BYTES as u64;
        verdict
    }
}

fn bucket(record: &Record) -> usize {
    usize::from(record.key.to_be_bytes()[0])
}

/// Returns the key of a record: pseudo-random, and different for every number below 2^48, as each
/// step can be inverted.
fn key(seed: u64, number: u64) -> u64 {
    mixed(number ^ (seed << 48))
}

/// Returns SplitMix64's number for a state (Steele, Lea, Flood, OOPSLA 2014).
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
