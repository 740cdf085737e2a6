//! Swaps to disk as the command line says: `overcommit` uses three times the memory, `fill`
//! allocates all that it can and frees it, `file` does the same and reads a file in between,
//! `rewrite` replaces data that compresses by data that does not, `sparse` does so with most pages
//! of a full disk, in as many threads as the next word says, `touch` and `beside` read pages of
//! which one has a bad slot.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::memory::Mapping;
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const PIECE_WORDS: usize = (1 << 20) / 8;
const PAGE_WORDS: usize = 512;
const PAGE_BYTES: usize = PAGE_WORDS * 8;
/// Pages that are evicted together. They get slots in the order of their addresses.
const PAGES: usize = 128;
/// The page whose slot the test makes unreadable.
const BAD_PAGE: usize = 20;

fn main() -> Outcome {
    let mut words = app::arguments().split_whitespace();
    let result = match words.next() {
        Some("overcommit") => overcommit(),
        Some("fill") => fill(),
        Some("file") => read_beside_all(),
        Some("rewrite") => rewrite(),
        Some("sparse") => sparse(words.next().and_then(|threads| threads.parse().ok()).unwrap_or(1)),
        Some("touch") => touch(PAGES),
        Some("beside") => touch(BAD_PAGE),
        _ => Err("the command line names no mode"),
    };
    let memory = app::memory();
    let (slots, written, read, errors) = (memory.swap_slots, memory.swap_out, memory.swap_in, memory.swap_errors);
    log::info!("swap: {slots} slots, {written} written, {read} read, {errors} errors");
    match result.and_then(|()| app::validate()) {
        Ok(()) => {
            log::info!("swap: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("swap: {what}");
            Outcome::Failure
        }
    }
}

/// Returns words that do not compress.
fn noise(piece: usize, index: usize) -> u64 {
    let mut word = ((piece << 32 | index) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Returns words that repeat for a while, as those of text do.
fn text_like(piece: usize, index: usize) -> u64 {
    ((piece as u64) << 48) | 0x616e_7469_0000 | ((index as u64 / 4).wrapping_mul(31) % 251)
}

type Pattern = fn(usize, usize) -> u64;

/// Allocates a piece and fills it with a pattern; `None` if there is no memory for it.
fn filled(piece: usize, words: usize, pattern: Pattern) -> Option<Vec<u64>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(words).ok()?;
    memory.extend((0..words).map(|index| pattern(piece, index)));
    Some(memory)
}

fn verify(piece: usize, words: &[u64], pattern: Pattern) -> Result<(), &'static str> {
    let is_kept = words.iter().enumerate().all(|(index, &word)| word == pattern(piece, index));
    if is_kept { Ok(()) } else { Err("a word has changed") }
}

fn mebibytes(times: usize) -> usize {
    usize::try_from(app::memory().total.mib()).unwrap_or(0) * times
}

/// Keeps three times the memory and verifies it twice.
fn overcommit() -> Result<(), &'static str> {
    let mut pieces = Vec::new();
    for piece in 0..mebibytes(3) {
        pieces.push(filled(piece, PIECE_WORDS, noise).ok_or("no memory")?);
    }
    for _ in 0..2 {
        for (piece, words) in pieces.iter().enumerate() {
            verify(piece, words, noise)?;
        }
        app::validate()?;
    }
    drop(pieces);
    let memory = app::memory();
    if memory.swap_out < FrameCount::from_mib(64).0 || memory.swap_in < FrameCount::from_mib(64).0 {
        return Err("it did not swap");
    }
    if memory.swap_slots_used > FrameCount::from_mib(1).0 { Err("slots are left of dropped pages") } else { Ok(()) }
}

/// Allocates all that it can, then verifies and frees piece after piece.
fn fill() -> Result<(), &'static str> {
    let mut pieces = Vec::new();
    while let Some(words) = filled(pieces.len(), PIECE_WORDS, noise) {
        pieces.push(words);
    }
    log::info!("swap: {} MiB to be had", pieces.len());
    if pieces.len() < mebibytes(1) / 2 || app::memory().allocation_failures == 0 {
        return Err("memory was lost");
    }
    while let Some(words) = pieces.pop() {
        verify(pieces.len(), &words, noise)?;
    }
    Ok(())
}

/// Allocates all that it can, so that the disk is full, and reads a file. Its pages can only
/// replace each other.
fn read_beside_all() -> Result<(), &'static str> {
    let file = app::map_disk().map_err(|_| "the file can't be mapped")?;
    let mut pieces = Vec::new();
    while let Some(words) = filled(pieces.len(), PIECE_WORDS, noise) {
        pieces.push(words);
    }
    let memory = app::memory();
    let left = memory.swap_slots - memory.swap_slots_used;
    log::info!("swap: {left} slots are free");
    for round in 1..=2 {
        if file.iter().step_by(4096).any(|&byte| byte != b'A') {
            return Err("the file was read wrongly");
        }
        log::info!("swap: round {round} of reading is over");
    }
    pieces.iter().enumerate().try_for_each(|(piece, words)| verify(piece, words, noise))
}

/// Fills one and a half times the memory with data that compresses, then with data that does not.
fn rewrite() -> Result<(), &'static str> {
    let mut pieces = Vec::new();
    for piece in 0..mebibytes(3) / 2 {
        pieces.push(filled(piece, PIECE_WORDS, text_like).ok_or("no memory")?);
    }
    log::info!("swap: all is text");
    for (piece, words) in pieces.iter_mut().enumerate() {
        verify(piece, words, text_like)?;
        for (index, word) in words.iter_mut().enumerate() {
            *word = noise(piece, index);
        }
    }
    Err("noise was compressed")
}

/// Fills memory and the swap disk with pages of which four compress to three, keeps one of four,
/// and replaces the others by noise, in `threads` threads: the slots of the pages that were dropped
/// are needed again.
fn sparse(threads: usize) -> Result<(), &'static str> {
    let spare = FrameCount::from_mib(4 + threads as u64);
    let bytes = usize::try_from(app::memory().available.saturating_sub(spare).bytes()).unwrap_or(0);
    let mut parts = Vec::new();
    for _ in 0..threads {
        let mut memory = Mapping::anonymous(bytes / threads).map_err(|_| "no memory")?;
        write_pages(&mut memory, |_| true, mostly_noise);
        parts.push(memory);
    }
    fill_disk()?;
    for memory in &mut parts {
        for page in (0..memory.len() / PAGE_BYTES).filter(|page| !is_kept(*page)) {
            memory.discard(page * PAGE_BYTES..(page + 1) * PAGE_BYTES);
        }
    }
    let (used, pages) = (app::memory().swap_slots_used, app::memory().swapped_pages);
    log::info!("swap: {used} slots hold {pages} pages");
    if used < 2 * pages {
        return Err("the disk holds no sparse zspages");
    }
    let handles: Vec<_> = parts
        .into_iter()
        .map(|memory| app::spawn("replace", move || replace_dropped(memory)).map_err(|_| "no thread"))
        .collect();
    handles.into_iter().try_for_each(|handle| handle?.join())
}

/// Writes noise to the pages that were dropped, and verifies all.
fn replace_dropped(mut memory: Mapping) -> Result<(), &'static str> {
    write_pages(&mut memory, |page| !is_kept(page), noise);
    verify_pages(&memory, is_kept, mostly_noise)?;
    verify_pages(&memory, |page| !is_kept(page), noise)
}

/// Evicts until nine tenths of the disk's slots are used. One call stops when its scans find
/// nothing, and the next begins with older pages.
fn fill_disk() -> Result<(), &'static str> {
    let mut idle_calls = 0;
    while app::memory().swap_slots_used * 10 < app::memory().swap_slots * 9 {
        let before = app::memory().swap_slots_used;
        app::reclaim(FrameCount(4096));
        idle_calls = if app::memory().swap_slots_used > before { 0 } else { idle_calls + 1 };
        if idle_calls > 20 {
            return Err("the disk is not full");
        }
    }
    Ok(())
}

fn is_kept(page: usize) -> bool {
    page.is_multiple_of(4)
}

/// Returns words of which four pages compress to three.
fn mostly_noise(page: usize, index: usize) -> u64 {
    if index < 350 { noise(page, index) } else { 0x2020_2020_2020_2020 }
}

fn write_pages(memory: &mut [u8], is_due: impl Fn(usize) -> bool, pattern: Pattern) {
    for (page, bytes) in memory.chunks_exact_mut(PAGE_BYTES).enumerate().filter(|(page, _)| is_due(*page)) {
        for (index, word) in bytes.as_chunks_mut().0.iter_mut().enumerate() {
            *word = pattern(page, index).to_le_bytes();
        }
    }
}

fn verify_pages(memory: &[u8], is_due: impl Fn(usize) -> bool, pattern: Pattern) -> Result<(), &'static str> {
    let is_right = |(page, bytes): (usize, &[u8])| {
        let words = bytes.as_chunks().0.iter().enumerate();
        !is_due(page) || words.into_iter().all(|(index, word)| u64::from_le_bytes(*word) == pattern(page, index))
    };
    if memory.chunks_exact(PAGE_BYTES).enumerate().all(is_right) { Ok(()) } else { Err("a word has changed") }
}

/// Has pages evicted and reads all of them but one.
fn touch(left_out: usize) -> Result<(), &'static str> {
    let words = filled(0, PIECE_WORDS, noise).ok_or("no memory")?;
    app::reclaim(FrameCount(PIECE_WORDS as u64 / PAGE_WORDS as u64));
    if app::memory().swapped_pages < PAGES as u64 {
        return Err("the pages were not evicted");
    }
    log::info!("swap: the bad page is at {:p}", &raw const words[BAD_PAGE * PAGE_WORDS]);
    for page in (0..PAGES).filter(|&page| page != left_out) {
        let first = page * PAGE_WORDS;
        let is_kept = (first..first + PAGE_WORDS).all(|index| words[index] == noise(0, index));
        if !is_kept {
            return Err("a word has changed");
        }
    }
    Ok(())
}
