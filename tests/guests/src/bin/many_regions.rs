//! Makes tens of thousands of large allocations until the commit limit refuses one, and frees them.
//! As many succeed again afterwards.
//!
//! `compressed_swap=` on the command line raises the commit limit. The memory is never touched.

#![no_std]
#![no_main]

use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

extern crate alloc;

/// The smallest allocation with a region of its own.
const PIECE_BYTES: usize = 512 << 10;
const LEAST: usize = 50_000;

fn main() -> Outcome {
    let failures = app::memory().allocation_failures;
    let first = fill();
    let before = app::memory();
    let second = fill();
    let after = app::memory();
    log::info!("many regions: {first}, then {second}");
    let is_exhausted = before.allocation_failures > failures && after.allocation_failures > before.allocation_failures;
    if first < LEAST || second != first || !is_exhausted {
        log::error!("many regions: there were too few, or some commit was not released");
        return Outcome::Failure;
    }
    if after.free < before.free || app::validate().is_err() {
        log::error!("many regions: {} were free and {} are", before.free, after.free);
        return Outcome::Failure;
    }
    log::info!("many regions: ok");
    Outcome::Success
}

/// Allocates pieces until one is refused, and frees them in another order; returns their number.
fn fill() -> usize {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut bytes = Vec::new();
        if pieces.try_reserve(1).is_err() || bytes.try_reserve_exact(PIECE_BYTES).is_err() {
            break;
        }
        pieces.push(bytes);
    }
    let count = pieces.len();
    let mut place = 0;
    while !pieces.is_empty() {
        place = (place + 7919) % pieces.len();
        drop(pieces.swap_remove(place));
    }
    count
}
