//! Items of 1 MiB that are worth keeping, as it takes time to make them, and need not be kept, as
//! they can be made again.

use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;

/// Words of an item. An allocation of this size has pages of its own, so all of it is free once it
/// is dropped.
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

    /// The word at `place`, which counts on from the first word behind the last.
    pub(crate) fn word(&self, place: u64) -> u64 {
        self.words[index(place)]
    }
}

/// Items in memory, the one that was asked for last at the end.
#[derive(Debug)]
pub(crate) struct Items {
    items: VecDeque<Item>,
    /// How many there may be.
    limit: usize,
}

impl Items {
    pub(crate) const fn new() -> Self {
        Self { items: VecDeque::new(), limit: 0 }
    }

    /// Makes a list for `count` items, so that no method allocates memory later.
    pub(crate) fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        self.limit = count;
        self.items.try_reserve_exact(count)
    }

    pub(crate) fn count(&self) -> usize {
        self.items.len()
    }

    /// A word of an item that is here.
    pub(crate) fn find(&mut self, key: u64, place: u64) -> Option<u64> {
        let found = self.items.iter().position(|item| item.key == key)?;
        let item = self.items.remove(found)?;
        let word = item.word(place);
        self.items.push_back(item);
        Some(word)
    }

    /// Drops what the limit has no room for once another item is here.
    pub(crate) fn make_room(&mut self) {
        while self.items.len() >= self.limit && self.drop_oldest() {}
    }

    /// Keeps an item, or drops it if the limit has been lowered meanwhile.
    pub(crate) fn insert(&mut self, item: Item) {
        if self.items.len() < self.limit {
            self.items.push_back(item);
        }
    }

    /// Allows `count` items more, but not more than there is a list for.
    pub(crate) fn raise_limit(&mut self, count: usize) {
        self.limit = (self.limit + count).min(self.items.capacity());
    }

    /// Allows no more than `limit` items; those that are too many stay until [`Self::drop_one`].
    pub(crate) fn lower_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Drops an item if there are more than allowed; tells whether there were.
    pub(crate) fn drop_one(&mut self) -> bool {
        self.items.len() > self.limit && self.drop_oldest()
    }

    /// Drops the item that has not been asked for the longest.
    fn drop_oldest(&mut self) -> bool {
        self.items.pop_front().is_some()
    }
}

/// What an item has at `place`.
pub(crate) fn word(key: u64, place: u64) -> u64 {
    (key << 32 | index(place) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn index(place: u64) -> usize {
    usize::try_from(place % WORDS as u64).unwrap_or(0)
}
