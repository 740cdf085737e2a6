//! The command line: `[repeat=N] [queries=N]`.

/// The values on the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The number of times that the index is built.
    pub(crate) rounds: u64,
    /// The number of queries to each index.
    pub(crate) queries: u64,
}

/// A word of the command line that is unknown or has a bad value.
#[derive(Debug)]
pub(crate) struct BadWord(pub(crate) &'static str);

impl Plan {
    /// Parses the words of a command line.
    pub(crate) fn parse(words: impl Iterator<Item = &'static str>) -> Result<Plan, BadWord> {
        let mut plan = Plan { rounds: 1, queries: 4000 };
        for word in words {
            match word.split_once('=') {
                Some(("repeat", count)) => plan.rounds = count.parse().map_err(|_| BadWord(word))?,
                Some(("queries", count)) => plan.queries = count.parse().map_err(|_| BadWord(word))?,
                _ => return Err(BadWord(word)),
            }
        }
        Ok(plan)
    }
}
