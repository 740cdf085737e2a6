//! An inverted index, as a search engine builds it in memory: the places of every term.
//!
//! * A *file* is a text with a number, from 0 in the order of reading.
//! * A *term* is what [`tokens()`] makes of a run of letters and digits.
//! * A *posting* is an occurrence of a term: a file, and the *position* in it, counted in terms
//!   from 0.
//!
//! An [`Index`] is built one file at a time and then [sorted](Index::sort). A [`SortedIndex`]
//! answers queries and has a [digest](SortedIndex::digest) that depends only on the text.
//! `docs/applications.md` defines terms, queries and digest, so that another program can compute
//! the same.
//!
//! Three structures hold an index, and none of them ever copies postings:
//!
//! ```text
//! table     hash table with open addressing, which doubles: the record of a term     table.rs
//! records   64 bytes a term: the places of its text and of its lists                 postings.rs
//! pool      texts of terms; lists of files and of positions: differences of          lists.rs
//!           variable length in chains of slices that double, from 8 bytes to 4 KiB   blocks.rs
//! ```
//!
//! Lucene collects postings in the same way before it writes a segment (`BytesRefHash`,
//! `ByteBlockPool`). Every allocation may fail; building then ends with
//! [`IndexError::OutOfMemory`]. A [`Watch`] gets every access, to record traces.
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

/// The reason why an index can't grow.
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
