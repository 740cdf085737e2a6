//! Items of 1 MiB. They are worth keeping, as it takes time to make them, and may be dropped, as
//! they can be made again.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;

/// Words of an item. An allocation of this size has pages of its own, so all of its memory is free
/// once it is dropped.
const WORDS: usize = (1 << 20) / size_of::<u64>();

/// An item in memory.
#[derive(Debug)]
pub(crate) struct Item {
    key: u64,
    words: Vec<u64>,
}

impl Item {
    /// Makes an item; `None` when there is no memory for it.
    pub(crate) fn make(key: u64) -> Option<Self> {
        let mut words = Vec::new();
        words.try_reserve_exact(WORDS).ok()?;
        words.extend((0..WORDS as u64).map(|place| word(key, place)));
        Some(Self { key, words })
    }

    /// Returns the word at `place`. Places beyond the last word begin again with the first.
    pub(crate) fn word(&self, place: u64) -> u64 {
        self.words[index(place)]
    }
}

/// Items in memory. The one that was requested last is at the end.
#[derive(Debug)]
pub(crate) struct Items {
    items: VecDeque<Item>,
    /// The largest number of items.
    limit: usize,
}

impl Items {
    pub(crate) const fn new() -> Self {
        Self { items: VecDeque::new(), limit: 0 }
    }

    /// Allocates a list for `count` items, so that no method allocates memory later.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        self.limit = count;
        self.items.try_reserve_exact(count)
    }

    pub(crate) fn count(&self) -> usize {
        self.items.len()
    }

    /// Returns a word of an item if it is in memory.
    pub(crate) fn find(&mut self, key: u64, place: u64) -> Option<u64> {
        let found = self.items.iter().position(|item| item.key == key)?;
        let item = self.items.remove(found)?;
        let word = item.word(place);
        self.items.push_back(item);
        Some(word)
    }

    /// Drops items until the limit has room for another one.
    pub(crate) fn make_room(&mut self) {
        while self.items.len() >= self.limit && self.drop_oldest() {}
    }

    /// Inserts an item, or drops it if the limit has been lowered meanwhile.
    pub(crate) fn insert(&mut self, item: Item) {
        if self.items.len() < self.limit {
            self.items.push_back(item);
        }
    }

    /// Raises the limit by `count` items, at most to the length of the list.
    pub(crate) fn raise_limit(&mut self, count: usize) {
        self.limit = (self.limit + count).min(self.items.capacity());
    }

    /// Lowers the limit. Items beyond it stay until [`Self::drop_one`].
    pub(crate) fn lower_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Drops an item if there are more than the limit; returns whether there were.
    pub(crate) fn drop_one(&mut self) -> bool {
        self.items.len() > self.limit && self.drop_oldest()
    }

    /// Drops the item whose last request is the longest ago.
    fn drop_oldest(&mut self) -> bool {
        self.items.pop_front().is_some()
    }
}

/// Returns the word that an item has at `place`.
pub(crate) fn word(key: u64, place: u64) -> u64 {
    (key << 32 | index(place) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn index(place: u64) -> usize {
    usize::try_from(place % WORDS as u64).unwrap_or(0)
}
