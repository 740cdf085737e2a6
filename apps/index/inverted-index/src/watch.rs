//! Who sees what an index reads and writes: nobody in a guest, a recorder of traces on the host.

/// A part of the memory that an index works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The file that is being read; offsets count from its beginning.
    Text,
    /// The hash table, which moves when it grows: how often it has.
    Table(u32),
    /// The terms' records.
    Records,
    /// Texts of terms and lists of postings.
    Pool,
    /// The terms in the order of their texts, and by their frequency.
    Order,
}

/// Is told of every access to the memory of an index.
pub trait Watch: Copy {
    /// So many bytes from `offset` on were read or written.
    fn touched(&self, area: Area, offset: usize, bytes: usize);
}

/// Watches nothing, and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    #[inline]
    fn touched(&self, _: Area, _: usize, _: usize) {}
}
