//! A set of small numbers that finds its first member in constant time: bits, with two levels of
//! summaries above.
//!
//! Three levels of 64 cover 262,144 numbers, which as huge frames are 512 GiB. A summary bit is set
//! while the word below holds any bit. The words come from outside (see [`super::bump`]): no heap
//! is needed, and zeroed memory is the empty set.

use core::ops::Range;

use super::bump::BumpAllocator;

const WORD_BITS: usize = 64;
const LEVELS: usize = 3;

/// The most numbers that a tree can hold.
pub(crate) const MAX_LENGTH: usize = WORD_BITS * WORD_BITS * WORD_BITS;

/// A set of numbers below a fixed length.
#[derive(Debug)]
pub(crate) struct BitTree {
    /// From the bits themselves up to the single top word.
    levels: [&'static mut [u64]; LEVELS],
    length: usize,
}

impl BitTree {
    /// Returns how many words a tree for `length` numbers needs.
    pub(crate) const fn words(length: usize) -> usize {
        let leaves = length.div_ceil(WORD_BITS);
        let middle = leaves.div_ceil(WORD_BITS);
        leaves + middle + middle.div_ceil(WORD_BITS)
    }

    /// Creates the empty set of numbers below `length`.
    pub(crate) fn new(length: usize, bump: &mut BumpAllocator) -> Self {
        assert!(length <= MAX_LENGTH, "more huge frames than the frame allocator is built for");
        let leaves = length.div_ceil(WORD_BITS);
        let middle = leaves.div_ceil(WORD_BITS);
        let levels = [bump.take(leaves), bump.take(middle), bump.take(middle.div_ceil(WORD_BITS))];
        Self { levels, length }
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.levels[0].get(number / WORD_BITS).is_some_and(|word| word & bit(number) != 0)
    }

    pub(crate) fn insert(&mut self, number: usize) {
        debug_assert!(number < self.length);
        let mut position = number;
        for level in &mut self.levels {
            level[position / WORD_BITS] |= bit(position);
            position /= WORD_BITS;
        }
    }

    pub(crate) fn remove(&mut self, number: usize) {
        let mut position = number;
        for level in &mut self.levels {
            let word = &mut level[position / WORD_BITS];
            *word &= !bit(position);
            if *word != 0 {
                return;
            }
            position /= WORD_BITS;
        }
    }

    /// Returns the smallest member.
    pub(crate) fn first(&self) -> Option<usize> {
        let [leaves, middle, top] = &self.levels;
        let top_word = *top.first()?;
        if top_word == 0 {
            return None;
        }
        let middle_index = lowest(top_word);
        let leaf_index = middle_index * WORD_BITS + lowest(middle[middle_index]);
        Some(leaf_index * WORD_BITS + lowest(leaves[leaf_index]))
    }

    /// Returns the smallest member that is at least `from`.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let mut position = from;
        for level in 0..LEVELS {
            let index = position / WORD_BITS;
            let word = self.levels[level].get(index)? & (u64::MAX << (position % WORD_BITS));
            if word != 0 {
                let found = index * WORD_BITS + lowest(word);
                let down = |found: usize, words: &&mut [u64]| found * WORD_BITS + lowest(words[found]);
                return Some(self.levels[..level].iter().rev().fold(found, down));
            }
            position = index + 1;
        }
        None
    }

    /// Returns whether all numbers of a range are members, or none of them is; `None` where some
    /// are.
    pub(crate) fn uniform(&self, numbers: &Range<usize>) -> Option<bool> {
        let words = || words_of(numbers).map(|(index, mask)| (self.levels[0][index] & mask, mask));
        if words().all(|(word, mask)| word == mask) {
            return Some(true);
        }
        words().all(|(word, _)| word == 0).then_some(false)
    }

    /// Adds all numbers of a range, a word at a time.
    pub(crate) fn insert_all(&mut self, numbers: &Range<usize>) {
        debug_assert!(numbers.end <= self.length);
        if numbers.is_empty() {
            return;
        }
        let mut range = numbers.clone();
        for level in &mut self.levels {
            for (index, mask) in words_of(&range) {
                level[index] |= mask;
            }
            range = range.start / WORD_BITS..range.end.div_ceil(WORD_BITS);
        }
    }

    /// Removes all numbers of a range, a word at a time.
    pub(crate) fn remove_all(&mut self, numbers: &Range<usize>) {
        for (index, mask) in words_of(numbers) {
            self.levels[0][index] &= !mask;
        }
        let mut range = numbers.clone();
        for level in 1..LEVELS {
            range = range.start / WORD_BITS..range.end.div_ceil(WORD_BITS);
            for index in range.clone() {
                if self.levels[level - 1][index] == 0 {
                    self.levels[level][index / WORD_BITS] &= !bit(index);
                }
            }
        }
    }

    /// Counts the members, a word at a time.
    pub(crate) fn count(&self) -> usize {
        self.levels[0].iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Makes every number below the length a member, a word at a time.
    pub(crate) fn fill(&mut self) {
        let mut count = self.length;
        for level in &mut self.levels {
            for (index, word) in level.iter_mut().enumerate() {
                let bits = (count - index * WORD_BITS).min(WORD_BITS);
                *word = if bits == WORD_BITS { u64::MAX } else { (1 << bits) - 1 };
            }
            count = count.div_ceil(WORD_BITS);
        }
    }

    /// Returns the members in order, for tests.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.length).filter(|&number| self.contains(number))
    }
}

/// Returns the words that hold the bits of a range, each with the mask of those bits.
fn words_of(range: &Range<usize>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let Range { start, end } = *range;
    (start / WORD_BITS..end.div_ceil(WORD_BITS)).map(move |index| {
        let below = start.saturating_sub(index * WORD_BITS);
        let above = ((index + 1) * WORD_BITS).saturating_sub(end);
        (index, (u64::MAX << below) & (u64::MAX >> above))
    })
}

const fn bit(position: usize) -> u64 {
    1 << (position % WORD_BITS)
}

const fn lowest(word: u64) -> usize {
    word.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::BitTree;
    use crate::mm::bump::BumpAllocator;
    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(length in 1_usize..10_000, steps in vec((proptest::bool::ANY, 0_usize..10_000), 0..200)) {
            let mut tree = BitTree::new(length, &mut BumpAllocator::leaked(BitTree::words(length)));
            let mut model = BTreeSet::new();
            for (insert, number) in steps {
                let number = number % length;
                if insert {
                    tree.insert(number);
                    model.insert(number);
                } else {
                    tree.remove(number);
                    model.remove(&number);
                }
                prop_assert_eq!(tree.first(), model.first().copied());
                prop_assert_eq!(tree.contains(number), insert);
            }
            prop_assert_eq!(tree.count(), model.len());
            prop_assert_eq!(tree.iter().collect::<BTreeSet<_>>(), model);
        }

        #[test]
        fn ranges_behave_like_their_numbers(
            length in 1_usize..10_000,
            steps in vec((proptest::bool::ANY, 0_usize..10_000, 0_usize..600), 0..60),
        ) {
            let mut tree = BitTree::new(length, &mut BumpAllocator::leaked(BitTree::words(length)));
            let mut model = BTreeSet::new();
            for (insert, start, count) in steps {
                let start = start % length;
                let numbers = start..(start + count).min(length);
                if insert {
                    tree.insert_all(&numbers);
                    model.extend(numbers.clone());
                } else {
                    tree.remove_all(&numbers);
                    model.retain(|number| !numbers.contains(number));
                }
                prop_assert!(numbers.is_empty() || tree.uniform(&numbers) == Some(insert));
                prop_assert_eq!(tree.next(start), model.range(start..).next().copied());
                prop_assert_eq!(tree.next(numbers.end), model.range(numbers.end..).next().copied());
                prop_assert_eq!(tree.first(), model.first().copied());
                let around = start.saturating_sub(1)..(numbers.end + 1).min(length);
                let members = around.clone().filter(|number| model.contains(number)).count();
                let uniform = if members == around.len() { Some(true) } else { (members == 0).then_some(false) };
                prop_assert_eq!(tree.uniform(&around), uniform);
            }
            prop_assert_eq!(tree.iter().collect::<BTreeSet<_>>(), model);
        }

        #[test]
        fn a_filled_tree_empties_in_order(length in 1_usize..9_000) {
            let mut tree = BitTree::new(length, &mut BumpAllocator::leaked(BitTree::words(length)));
            tree.fill();
            for number in 0..length {
                prop_assert_eq!(tree.first(), Some(number));
                tree.remove(number);
            }
            prop_assert_eq!(tree.first(), None);
        }
    }
}
