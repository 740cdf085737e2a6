//! Uses twice the memory of its machine, with data that compresses. Cold pieces are evicted for
//! warm ones, and every byte stays right.

#![no_std]
#![no_main]

extern crate alloc;

use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

const PIECE_WORDS: usize = (4 << 20) / 8;

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("overcommit: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("overcommit: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let count = usize::try_from(app::memory().total.mib()).unwrap_or(0) * 2 / 4;
    let mut pieces: Vec<Vec<u64>> = Vec::new();
    for piece in 0..count {
        let mut words = Vec::new();
        words.try_reserve_exact(PIECE_WORDS).map_err(|_| "no memory")?;
        words.extend((0..PIECE_WORDS).map(|index| text_like(piece, index)));
        pieces.push(words);
    }
    for (piece, words) in pieces.iter().enumerate() {
        if words.iter().enumerate().any(|(index, &word)| word != text_like(piece, index)) {
            return Err("a word has changed");
        }
    }
    let memory = app::memory();
    log::info!(
        "{} evictions, {} restores, {} in the compressed pool",
        memory.evictions,
        memory.restores,
        memory.compressed_frames
    );
    drop(pieces);
    if app::memory().compressed_pages != 0 {
        Err("evicted pages are left of a dropped region")
    } else {
        app::validate()
    }
}

/// Returns words that repeat for a while, as those of text do.
fn text_like(piece: usize, index: usize) -> u64 {
    ((piece as u64) << 48) | 0x616e_7469_0000 | ((index as u64 / 4).wrapping_mul(31) % 251)
}
