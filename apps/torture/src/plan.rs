//! The command line: `seconds=N threads=N times=N seed=N`, all of which may be left out.

use core::fmt;

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) threads: u64,
    /// How many times the machine's memory is used.
    pub(crate) times: u64,
    pub(crate) seed: u64,
}

/// What is wrong with a command line.
#[derive(Debug)]
pub(crate) enum PlanError {
    /// A word that means nothing here.
    UnknownWord(&'static str),
    /// Something that is no number, or zero.
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
    /// The plan that the words of a command line describe.
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
