//! Words in shared memory that are read together, as one writer left them.
//!
//! A sequence lock without the wait: the writer stores a version before and after the words, and a
//! reader that finds two versions has read words of two moments. It tries again a few times and
//! then returns nothing, so a writer that stops in the middle blocks no reader.

use core::array;
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// How often a reader tries.
const ATTEMPTS: usize = 4;

/// Words, and the version of what they hold.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Versioned<const WORDS: usize> {
    /// The version that the words are getting.
    begun: AtomicU64,
    words: [AtomicU64; WORDS],
    /// The version that the words have.
    ended: AtomicU64,
}

impl<const WORDS: usize> Versioned<WORDS> {
    pub(super) const fn new() -> Self {
        Self { begun: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS], ended: AtomicU64::new(0) }
    }

    /// Returns the version of the words.
    pub(super) fn version(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Writes the words. For one writer at a time. The versions are only compared: the other
    /// process may write anything there, and loses no more than its own view.
    pub(super) fn write(&self, words: &[u64; WORDS]) {
        let version = self.ended.load(Ordering::Relaxed).wrapping_add(1);
        self.begun.store(version, Ordering::Relaxed);
        // Orders the version before the words: a reader that sees a word sees that it is changing.
        fence(Ordering::Release);
        self.words.iter().zip(words).for_each(|(shared, word)| shared.store(*word, Ordering::Relaxed));
        self.ended.store(version, Ordering::Release);
    }

    /// Returns the words of one version; `None` while they are being written.
    pub(super) fn read(&self) -> Option<[u64; WORDS]> {
        (0..ATTEMPTS).find_map(|_| {
            let ended = self.ended.load(Ordering::Acquire);
            let words = array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
            // Orders the words before the version, as in `write`.
            fence(Ordering::Acquire);
            (self.begun.load(Ordering::Relaxed) == ended).then_some(words)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Versioned;
    use core::sync::atomic::Ordering;
    use std::thread;

    #[test]
    fn words_that_are_being_written_are_not_read() {
        let shared = Versioned::<3>::new();
        shared.write(&[1, 2, 3]);
        assert_eq!(shared.read(), Some([1, 2, 3]));
        shared.begun.store(7, Ordering::Relaxed);
        assert_eq!(shared.read(), None);
        shared.write(&[4, 5, 6]);
        assert_eq!(shared.read(), Some([4, 5, 6]));
    }

    #[test]
    fn no_reader_sees_words_of_two_versions() {
        const WRITES: u64 = 20_000;
        let shared = Versioned::<8>::new();
        thread::scope(|scope| {
            scope.spawn(|| (1..=WRITES).for_each(|number| shared.write(&[number; 8])));
            while shared.version() < WRITES {
                if let Some(words) = shared.read() {
                    assert_eq!(words, [words[0]; 8]);
                }
            }
        });
    }
}
