//! The contents of a page: a rule of a few bytes that determines every word, so that the whole page
//! can be verified.

use crate::random::{Random, scramble};

/// Bytes in a page.
pub(crate) const PAGE_BYTES: usize = 4096;
const WORD_BYTES: usize = 8;

/// The rule of one page. The seed makes its contents differ from those of other pages and from its
/// own before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// Never written, or discarded since.
    Untouched,
    /// Consists of one word.
    OneWord(u32),
    /// Compresses to about a fifth, a half or three quarters of a page: `noise` words of noise, and
    /// one word in all other places.
    Mixed { noise: u16, seed: u64 },
    /// Does not compress.
    Noise(u64),
}

impl Contents {
    pub(crate) fn random(random: &mut Random) -> Self {
        let seed = random.next();
        match seed % 10 {
            0 => Self::OneWord((seed >> 32) as u32),
            1 | 2 => Self::Mixed { noise: 60, seed },
            3 | 4 => Self::Mixed { noise: 200, seed },
            5 => Self::Mixed { noise: 350, seed },
            _ => Self::Noise(seed),
        }
    }

    fn word(self, index: usize) -> u64 {
        match self {
            Self::Untouched => 0,
            Self::OneWord(word) => u64::from(word) << 32 | u64::from(word),
            Self::Mixed { noise, seed } if index >= usize::from(noise) => seed,
            Self::Mixed { seed, .. } | Self::Noise(seed) => scramble(seed ^ index as u64),
        }
    }

    pub(crate) fn write(self, page: &mut [u8]) {
        for (index, bytes) in page.as_chunks_mut::<WORD_BYTES>().0.iter_mut().enumerate() {
            *bytes = self.word(index).to_le_bytes();
        }
    }

    /// Returns the number of words that break the rule.
    pub(crate) fn wrong_words(self, page: &[u8]) -> u64 {
        let words = page.as_chunks::<WORD_BYTES>().0.iter().enumerate();
        words.map(|(index, bytes)| u64::from(*bytes != self.word(index).to_le_bytes())).sum()
    }
}
