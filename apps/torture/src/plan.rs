//! The command line: `[seconds=N] [threads=N] [times=N] [seed=N]`.

use core::fmt;

/// The values on the command line.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) threads: u64,
    /// The memory to use, in sizes of the machine.
    pub(crate) times: u64,
    pub(crate) seed: u64,
}

/// An error in a command line.
#[derive(Debug)]
pub(crate) enum PlanError {
    /// A word is unknown.
    UnknownWord(&'static str),
    /// A value is not a number, or is zero.
    BadNumber(&'static str),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownWord(word) => {
                write!(f, "unknown word {word:?}: expected seconds=, threads=, times= or seed= and a number")
            }
            Self::BadNumber(word) => write!(f, "{word:?} does not end with a number above 0"),
        }
    }
}

impl Plan {
    /// Parses the words of a command line.
    pub(crate) fn parse(words: impl Iterator<Item = &'static str>) -> Result<Self, PlanError> {
        let mut plan = Self { seconds: 20, threads: 8, times: 3, seed: 1 };
        for word in words {
            let (key, value) = word.split_once('=').ok_or(PlanError::UnknownWord(word))?;
            let field = match key {
                "seconds" => &mut plan.seconds,
                "threads" => &mut plan.threads,
                "times" => &mut plan.times,
                "seed" => &mut plan.seed,
                _ => return Err(PlanError::UnknownWord(word)),
            };
            *field = value.parse().ok().filter(|&number| number > 0).ok_or(PlanError::BadNumber(word))?;
        }
        Ok(plan)
    }
}
