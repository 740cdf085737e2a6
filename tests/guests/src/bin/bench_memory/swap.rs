//! Evicts pages that do not compress to the swap disk and restores them, through the paths of
//! eviction and faults.

use core::hint::black_box;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant, Outcome};
use alloc::vec;

use crate::{PAGE_BYTES, log};

const BYTES: usize = 256 << 20;
const WORDS: usize = PAGE_BYTES / 8;

pub(crate) fn measure() -> Outcome {
    let mut memory = vec![0_u64; BYTES / 8];
    for (place, word) in memory.iter_mut().enumerate() {
        *word = noise(place);
    }
    let _ = app::reclaim(FrameCount(1)); // splits and ages pages, so that the next call only evicts
    for _ in 0..2 {
        out(&memory);
        into(&memory);
    }
    if memory.iter().enumerate().all(|(place, &word)| word == noise(place)) {
        Outcome::Success
    } else {
        log::error!("bench memory: a word has changed on the swap disk");
        Outcome::Failure
    }
}

/// Evicts half of the pages; the figure is per page written.
fn out(memory: &[u64]) {
    let before = app::memory().swap_out;
    let start = Instant::now();
    app::reclaim(FrameCount((memory.len() / WORDS / 2) as u64));
    let nanoseconds = Instant::now().since(start);
    log("swap_out", nanoseconds, count(app::memory().swap_out - before));
}

/// Touches every page in order; the figure is per page read.
fn into(memory: &[u64]) {
    let before = app::memory().swap_in;
    let start = Instant::now();
    for word in memory.iter().step_by(WORDS) {
        black_box(*word);
    }
    log("swap_in", Instant::now().since(start), count(app::memory().swap_in - before));
}

/// Returns a word that no other place has.
fn noise(place: usize) -> u64 {
    let mixed = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn count(slots: u64) -> usize {
    usize::try_from(slots).unwrap_or(usize::MAX)
}
