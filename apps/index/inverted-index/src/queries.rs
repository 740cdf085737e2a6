//! Queries to a finished index: pairs of terms, drawn by a rule that prefers frequent terms, as
//! users do.

use crate::sorted::SortedIndex;
use crate::watch::Watch;

/// The results of queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Queries answered.
    pub queries: u64,
    /// Files in which both terms of a query occur, over all queries.
    pub hits: u64,
}

/// Runs `count` queries, which are always the same for the same index, and calls `progress` after
/// each.
pub fn queries<W: Watch>(index: &SortedIndex<W>, count: u64, mut progress: impl FnMut(Answers)) -> Answers {
    let mut ranks = Ranks { terms: index.index().terms(), state: 0 };
    let mut answers = Answers::default();
    while answers.queries < count {
        let (one, other) = (ranks.draw(), ranks.draw());
        let (Some(one), Some(other)) = (index.by_frequency(one), index.by_frequency(other)) else { break };
        answers.queries += 1;
        answers.hits += u64::from(index.files_with_both(one, other));
        progress(answers);
    }
    answers
}

/// Draws ranks: first one of the spans 2, 4, 8 … that begin with the most frequent term, then a
/// rank from it, evenly. That approximates Zipf's law with whole numbers.
struct Ranks {
    terms: u32,
    state: u64,
}

impl Ranks {
    /// Returns a rank, which is 0 if there are no terms.
    fn draw(&mut self) -> u32 {
        let Some(log) = self.terms.checked_ilog2() else { return 0 };
        let span = (2 << self.below(u64::from(log) + 1)).min(u64::from(self.terms));
        u32::try_from(self.below(span)).expect("spans are at most the number of terms")
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns the next number of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
