//! Breaks every huge frame into small pieces, frees most of them, and uses memory for which then no huge frame is whole: the kernel
//! moves pages together and makes huge pages, and every byte is right.

#![no_std]
#![no_main]

extern crate alloc;

use aerostat_guest::app::{self, MemoryInfo, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

const PAGE_WORDS: usize = 512;
/// Too small for a huge page.
const PIECE_WORDS: usize = (3 << 19) / 8;
/// Of so many pieces one is kept.
const KEPT: usize = 4;
const BUSY_WORDS: usize = (8 << 20) / 8;
/// Far more turns than it takes, of a twentieth of a second and more each.
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
    let mut pieces = pieces_that_take_turns()?;
    let mut number = 0;
    pieces.retain(|_| {
        number += 1;
        number % KEPT == 0
    });
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
    Err("nothing became whole")
}

/// All memory in small pieces, each of which has pages everywhere; a page has its numbers in it.
fn pieces_that_take_turns() -> Result<Vec<(usize, Vec<u64>)>, &'static str> {
    let mut pieces = Vec::new();
    while app::memory().available.bytes() > 8 * PIECE_WORDS as u64 {
        pieces.push((pieces.len(), reserved(PIECE_WORDS)?));
    }
    for page in (0..PIECE_WORDS).step_by(PAGE_WORDS) {
        for (number, piece) in &mut pieces {
            piece.resize(page + PAGE_WORDS, contents(*number, page));
        }
    }
    Ok(pieces)
}

/// Memory of which no page has been touched.
fn reserved(words: usize) -> Result<Vec<u64>, &'static str> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).map_err(|_| "no memory")?;
    Ok(memory)
}

fn contents(number: usize, page: usize) -> u64 {
    ((number as u64) << 32) | page as u64 | 1
}

fn check(pieces: &[(usize, Vec<u64>)], busy: &[u64], turns: usize) -> Result<(), &'static str> {
    let is_right = |(number, piece): &(usize, Vec<u64>)| {
        (0..PIECE_WORDS).step_by(PAGE_WORDS).all(|page| piece[page] == contents(*number, page))
    };
    if !pieces.iter().all(is_right) {
        return Err("a page that was moved has changed");
    }
    let expected = |word: usize| (word..=turns).step_by(PAGE_WORDS).map(|turn| turn as u64).sum::<u64>();
    let is_right = |page: &[u64]| page.iter().enumerate().all(|(word, value)| *value == expected(word));
    if busy.chunks_exact(PAGE_WORDS).all(is_right) { Ok(()) } else { Err("a huge page has lost a word") }
}
