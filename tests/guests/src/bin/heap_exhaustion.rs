//! Allocates until nothing is left, in large pieces and in small ones: a failed allocation, and all is well after freeing.

#![no_std]
#![no_main]

use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

extern crate alloc;

fn main() -> Outcome {
    for piece in [4 << 20, 1 << 20, 40_000, 900] {
        let before = app::memory().allocation_failures;
        let first = fill_memory(piece);
        let second = fill_memory(piece);
        log::info!("pieces of {piece} bytes: {first}, then {second}");
        if first == 0 || second * 10 < first * 9 || app::memory().allocation_failures == before {
            log::error!("heap exhaustion: memory was lost, or never ran out");
            return Outcome::Failure;
        }
    }
    log::info!("heap exhaustion: ok");
    Outcome::Success
}

/// How many pieces of so many bytes, all of them touched, fit into memory; frees them again.
fn fill_memory(piece: usize) -> usize {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut bytes = Vec::new();
        if pieces.try_reserve(1).is_err() || bytes.try_reserve_exact(piece).is_err() {
            return pieces.len();
        }
        bytes.resize(piece, 7);
        pieces.push(bytes);
    }
}
