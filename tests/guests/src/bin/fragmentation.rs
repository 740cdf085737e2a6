//! Allocates pieces of every huge frame, frees most of them, and then uses memory for which no huge
//! frame is whole. The kernel moves pages together and makes huge pages, and every byte stays
//! right.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../pieces.rs"]
mod pieces;

use aerostat_guest::app::{self, MemoryInfo, Outcome};
use pieces::{PAGE_WORDS, are_right, reserved, scattered};

aerostat_guest::app!(main);

const BUSY_WORDS: usize = (8 << 20) / 8;
/// Turns of a twentieth of a second or more: far more than needed.
const PATIENCE: usize = 1200;

fn main() -> Outcome {
    match run() {
        Ok(memory) => {
            log::info!("fragmentation: ok, {} collapses, {} pages moved", memory.collapses, memory.moved_pages);
            Outcome::Success
        }
        Err(what) => {
            log::error!("fragmentation: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<MemoryInfo, &'static str> {
    let pieces = scattered()?;
    let mut busy = reserved(BUSY_WORDS)?;
    busy.resize(BUSY_WORDS, 0);
    let first = app::memory();
    for turn in 1..PATIENCE {
        for page in busy.chunks_exact_mut(PAGE_WORDS) {
            page[turn % PAGE_WORDS] += turn as u64;
        }
        let memory = app::memory();
        if memory.collapses > 0 && memory.moved_pages > 0 {
            check(&pieces, &busy, turn)?;
            drop((pieces, busy));
            return app::validate().map(|()| memory);
        }
        app::sleep(50);
    }
    log::error!("from {first:?} to {:?}", app::memory());
    Err("no huge frame became whole")
}

fn check(pieces: &[pieces::Piece], busy: &[u64], turns: usize) -> Result<(), &'static str> {
    if !are_right(pieces) {
        return Err("a page that was moved has changed");
    }
    let expected = |word: usize| (word..=turns).step_by(PAGE_WORDS).map(|turn| turn as u64).sum::<u64>();
    let is_right = |page: &[u64]| page.iter().enumerate().all(|(word, value)| *value == expected(word));
    if busy.chunks_exact(PAGE_WORDS).all(is_right) { Ok(()) } else { Err("a huge page has lost a word") }
}
