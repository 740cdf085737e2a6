//! Small pieces of memory in all huge frames of the machine, so that each is partly used.

use aerostat_guest::app;
use alloc::vec::Vec;

pub(crate) const PAGE_WORDS: usize = 512;
/// Words of a piece, which is too small for a huge page.
const PIECE_WORDS: usize = (3 << 19) / 8;
/// One piece of so many is kept.
const KEPT: usize = 4;

/// The number of a piece and its words. The first word of each page has the numbers of piece and
/// page.
pub(crate) type Piece = (usize, Vec<u64>);

/// Allocates all memory in small pieces, each with pages in every huge frame, and frees most of the
/// pieces.
pub(crate) fn scattered() -> Result<Vec<Piece>, &'static str> {
    let mut pieces = interleaved_pieces()?;
    let mut number = 0;
    pieces.retain(|_| {
        number += 1;
        number % KEPT == 0
    });
    Ok(pieces)
}

/// Allocates all memory in small pieces and touches a page of each in turn.
fn interleaved_pieces() -> Result<Vec<Piece>, &'static str> {
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

/// Allocates memory and touches none of it.
pub(crate) fn reserved(words: usize) -> Result<Vec<u64>, &'static str> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).map_err(|_| "no memory")?;
    Ok(memory)
}

fn contents(number: usize, page: usize) -> u64 {
    ((number as u64) << 32) | page as u64 | 1
}

/// Returns whether each page has its contents.
pub(crate) fn are_right(pieces: &[Piece]) -> bool {
    let is_right = |(number, piece): &Piece| {
        (0..PIECE_WORDS).step_by(PAGE_WORDS).all(|page| piece[page] == contents(*number, page))
    };
    pieces.iter().all(is_right)
}
