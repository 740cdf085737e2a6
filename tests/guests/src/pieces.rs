//! Memory in small pieces, all over the machine: each huge frame is used a little.

use aerostat_guest::app;
use alloc::vec::Vec;

pub(crate) const PAGE_WORDS: usize = 512;
/// Too small for a huge page.
const PIECE_WORDS: usize = (3 << 19) / 8;
/// Of so many pieces one is kept.
const KEPT: usize = 4;

/// Words of which each page has its numbers in it.
pub(crate) type Piece = (usize, Vec<u64>);

/// Breaks every huge frame into small pieces, and frees most of them.
pub(crate) fn scattered() -> Result<Vec<Piece>, &'static str> {
    let mut pieces = pieces_that_take_turns()?;
    let mut number = 0;
    pieces.retain(|_| {
        number += 1;
        number % KEPT == 0
    });
    Ok(pieces)
}

/// All memory in small pieces, each of which has pages everywhere; a page has its numbers in it.
fn pieces_that_take_turns() -> Result<Vec<Piece>, &'static str> {
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
pub(crate) fn reserved(words: usize) -> Result<Vec<u64>, &'static str> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).map_err(|_| "no memory")?;
    Ok(memory)
}

fn contents(number: usize, page: usize) -> u64 {
    ((number as u64) << 32) | page as u64 | 1
}

/// Whether each page is as it was.
pub(crate) fn are_right(pieces: &[Piece]) -> bool {
    let is_right = |(number, piece): &Piece| {
        (0..PIECE_WORDS).step_by(PAGE_WORDS).all(|page| piece[page] == contents(*number, page))
    };
    pieces.iter().all(is_right)
}
