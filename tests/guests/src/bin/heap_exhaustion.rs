//! Allocates until memory runs out, in large and in small pieces. The last allocation fails, and
//! after freeing as much memory can be allocated again.

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

/// Bytes that do not compress. Data that does could be evicted to make room for a long time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0.to_le_bytes()[7]
    }
}

/// Allocates and touches pieces of so many bytes until memory runs out, and frees them; returns
/// their number.
fn fill_memory(piece: usize) -> usize {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut noise = Noise(1);
    loop {
        let mut bytes = Vec::new();
        if pieces.try_reserve(1).is_err() || bytes.try_reserve_exact(piece).is_err() {
            return pieces.len();
        }
        bytes.extend((0..piece).map(|_| noise.next()));
        pieces.push(bytes);
    }
}
