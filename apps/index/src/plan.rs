//! The command line: `[repeat=N] [queries=N]`.

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How often the index is built.
    pub(crate) rounds: u64,
    /// Questions for each index.
    pub(crate) queries: u64,
}

/// A word of the command line that means nothing here, or whose value does not.
#[derive(Debug)]
pub(crate) struct BadWord(pub(crate) &'static str);

impl Plan {
    /// The plan that the words of a command line describe.
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
