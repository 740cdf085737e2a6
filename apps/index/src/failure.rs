//! The errors that end the application.

use core::fmt;

use aerostat_guest::app::MapError;
use inverted_index::IndexError;
use tar_no_std::CorruptDataError;

use crate::plan::BadWord;

/// An error that ends the application.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line has a bad word.
    Word(BadWord),
    /// The disk can't be read.
    Disk(MapError),
    /// The disk has no archive on it.
    Archive(CorruptDataError),
    /// The index can't grow.
    Index {
        /// The reason.
        why: IndexError,
        /// The number of files that it has.
        files: u32,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(BadWord(word)) => {
                write!(f, "{word:?} is not understood: expected [repeat=N] [queries=N], such as repeat=3")
            }
            Self::Disk(error) => write!(f, "the disk with the text can't be mapped: {error}"),
            Self::Archive(error) => write!(f, "the disk is no tar archive of the plain format: {error}"),
            Self::Index { why, files } => write!(f, "{why} after {files} files"),
        }
    }
}

impl From<BadWord> for Failure {
    fn from(word: BadWord) -> Self {
        Self::Word(word)
    }
}

impl From<MapError> for Failure {
    fn from(error: MapError) -> Self {
        Self::Disk(error)
    }
}

impl From<CorruptDataError> for Failure {
    fn from(error: CorruptDataError) -> Self {
        Self::Archive(error)
    }
}
