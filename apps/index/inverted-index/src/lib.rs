//! An inverted index: for every term the places where it occurs, as search engines keep it while
//! they read.
//!
//! * A *file* is a text with a number, from 0 in the order of reading.
//! * A *term* is what [`tokens()`] makes of a run of letters and digits.
//! * A *posting* is an occurrence of a term: a file, and the *position* in it, counted in terms
//!   from 0.
//!
//! An [`Index`] is built a file at a time and then [sorted](Index::sort); a [`SortedIndex`] answers
//! queries and has a [digest](SortedIndex::digest) that depends on the text alone.
//! `docs/applications.md` defines terms, queries and digest for those who want to compare.
//!
//! Three structures hold an index, and none of them ever copies postings:
//!
//! ```text
//! table     hash table of open addressing: which record has a term; doubles            table.rs
//! records   64 bytes a term: where its text and its lists lie                          postings.rs
//! pool      texts of terms, lists of files and of positions: differences of            lists.rs, blocks.rs
//!           variable length in chains of slices that double, from 8 bytes to 4 KiB
//! ```
//!
//! That is how Lucene collects postings before it writes a segment (`BytesRefHash`,
//! `ByteBlockPool`). Memory is asked for with care everywhere: where there is none, building ends
//! with [`IndexError::OutOfMemory`]. A [`Watch`] sees every access, for recording traces.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod blocks;
mod digest;
mod index;
mod lists;
mod postings;
mod queries;
mod sorted;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;

use core::fmt;

pub use index::Index;
pub use postings::{Files, InFile, Posting, Postings};
pub use queries::{Answers, queries};
pub use sorted::SortedIndex;
pub use tokens::{LONGEST_TERM, Token, Tokens, tokens};
pub use watch::{Area, Unwatched, Watch};

/// Why an index can't grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexError {
    /// The allocator has no more memory.
    OutOfMemory,
    /// A count or an address does not fit 32 bits.
    TooLarge,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::TooLarge => "more than 32 bits can count",
        })
    }
}

impl core::error::Error for IndexError {}
