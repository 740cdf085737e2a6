//! Memory in pieces, each with a pattern of its own that shows whether anything else wrote to it.

use alloc::vec::Vec;
use core::mem;

use aerostat_guest::app::Instant;

/// The size of a piece. Pieces of this size have regions of their own, so the memory of a dropped
/// one is free for the balloon at once.
const PIECE_BYTES: usize = 4 << 20;

/// A piece of the working set, filled with the pattern of `seed`.
#[derive(Debug, Default)]
struct Piece {
    words: Vec<u64>,
    seed: u64,
}

/// A working set, with counts of what was verified.
#[derive(Debug, Default)]
pub struct WorkingSet {
    pieces: Vec<Piece>,
    next_seed: u64,
    /// The piece at which the last walk stopped.
    position: usize,
    verified_bytes: u64,
    errors: u64,
}

impl WorkingSet {
    /// Grows or shrinks to `bytes`, rounded up to whole pieces. Returns `false` if memory ran out
    /// before.
    pub fn resize(&mut self, bytes: usize) -> bool {
        let count = bytes.div_ceil(PIECE_BYTES);
        while self.pieces.len() > count {
            if let Some(piece) = self.pieces.pop() {
                self.verify(&piece);
            }
        }
        while self.pieces.len() < count {
            let mut words = Vec::new();
            if self.pieces.try_reserve(1).is_err() || words.try_reserve_exact(PIECE_BYTES / 8).is_err() {
                return false;
            }
            let seed = self.new_seed();
            words.extend((0..PIECE_BYTES / 8).map(|index| pattern(seed, index)));
            self.pieces.push(Piece { words, seed });
        }
        true
    }

    /// Verifies and rewrites the pieces of the first `active_bytes` in turn, each at most once,
    /// until `end`. The others are not touched.
    pub fn walk(&mut self, active_bytes: usize, end: Instant) {
        let active = active_bytes.div_ceil(PIECE_BYTES).min(self.pieces.len());
        for _ in 0..active {
            if Instant::now() >= end {
                return;
            }
            self.position = (self.position + 1) % active;
            let mut piece = mem::take(&mut self.pieces[self.position]);
            self.verify(&piece);
            piece.seed = self.new_seed();
            for (index, word) in piece.words.iter_mut().enumerate() {
                *word = pattern(piece.seed, index);
            }
            self.pieces[self.position] = piece;
        }
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pieces.len() * PIECE_BYTES
    }

    /// Returns the number of bytes that were read back and were right.
    #[must_use]
    pub fn verified_bytes(&self) -> u64 {
        self.verified_bytes
    }

    /// Returns the number of words that were wrong.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    fn verify(&mut self, piece: &Piece) {
        let mut wrong = 0;
        for (index, &word) in piece.words.iter().enumerate() {
            wrong += u64::from(word != pattern(piece.seed, index));
        }
        if wrong != 0 {
            log::error!("{wrong} of {} words at {:p} have changed", piece.words.len(), piece.words.as_ptr());
        }
        self.errors += wrong;
        self.verified_bytes += (piece.words.len() as u64 - wrong) * 8;
    }

    fn new_seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed
    }
}

/// Returns a word that differs for every word of every piece, and is cheap to compute.
fn pattern(seed: u64, index: usize) -> u64 {
    (seed << 32 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
