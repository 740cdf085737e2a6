//! The command line: `size=SIZE [repeat=N]`.

use aerostat_guest::app;
use core::fmt;

use crate::records::RECORD_BYTES;

/// The values on the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Memory for records.
    pub(crate) bytes: usize,
    /// The number of times that they are made and sorted.
    pub(crate) rounds: u64,
}

/// An error in a command line.
#[derive(Debug)]
pub(crate) enum PlanError<'a> {
    /// There is no `size=`, or no record fits it.
    NoSize,
    /// A word is unknown or has a bad value.
    BadWord(&'a str),
}

impl fmt::Display for PlanError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSize => f.write_str("say how much to sort: size=SIZE [repeat=N] such as size=256M repeat=3"),
            Self::BadWord(word) => {
                write!(f, "{word:?} is not understood: expected size=SIZE [repeat=N] such as size=256M")
            }
        }
    }
}

impl Plan {
    /// Parses the words of a command line.
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Plan, PlanError<'a>> {
        let mut plan = Plan { bytes: 0, rounds: 1 };
        for word in words {
            let bad = PlanError::BadWord(word);
            match word.split_once('=') {
                Some(("size", size)) => plan.bytes = app::parse_size(size).ok_or(bad)?,
                Some(("repeat", count)) => plan.rounds = count.parse().map_err(|_| bad)?,
                _ => return Err(bad),
            }
        }
        if plan.bytes < RECORD_BYTES { Err(PlanError::NoSize) } else { Ok(plan) }
    }
}
