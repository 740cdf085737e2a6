//! Observation of the memory that an index reads and writes. A recorder of traces uses it on the
//! host; in a guest it costs nothing.

/// A part of the memory that an index works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The file that is being read. Offsets count from its beginning.
    Text,
    /// The hash table after so many growths, each of which moves it.
    Table(u32),
    /// The terms' records.
    Records,
    /// Texts of terms and lists of postings.
    Pool,
    /// The terms in the order of their texts, and by their frequency.
    Order,
}

/// An observer of every access to the memory of an index.
pub trait Watch: Copy {
    /// Notes that `bytes` bytes from `offset` on were read or written.
    fn touched(&self, area: Area, offset: usize, bytes: usize);
}

/// The observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    #[inline]
    fn touched(&self, _: Area, _: usize, _: usize) {}
}
