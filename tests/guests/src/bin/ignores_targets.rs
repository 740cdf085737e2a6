//! Fills the memory that the command line names in MiB, masks upcalls for so many seconds, so that
//! its driver follows no target, and verifies its memory meanwhile and afterwards, for ever.

#![no_std]
#![no_main]

#[path = "../masked.rs"]
mod masked;

use core::hint::black_box;

use aerostat_guest::app::memory::Mapping;
use aerostat_guest::app::{self, Instant, Outcome};

aerostat_guest::app!(main);

const PAGE_BYTES: usize = 4096;
const WORDS: usize = PAGE_BYTES / size_of::<u64>();

fn main() -> Outcome {
    let mut words = app::words().filter_map(|word| word.parse::<usize>().ok());
    let (Some(mib), Some(seconds)) = (words.next(), words.next()) else {
        log::error!("ignores targets: the command line has to name MiB and seconds");
        return Outcome::Failure;
    };
    let Ok(mut memory) = Mapping::anonymous(mib << 20) else {
        log::error!("ignores targets: no memory");
        return Outcome::Failure;
    };
    for (page, bytes) in memory.chunks_exact_mut(PAGE_BYTES).enumerate() {
        bytes.chunks_exact_mut(8).enumerate().for_each(|(word, bytes)| bytes.copy_from_slice(&value(page, word)));
    }
    log::info!("ignores targets: filled");
    // A page that was evicted meanwhile can't be restored while upcalls are masked.
    loop {
        let before = app::memory().restores;
        if !verify(&memory) {
            log::error!("ignores targets: a word has changed");
            return Outcome::Failure;
        }
        app::sleep(500);
        if app::memory().restores == before {
            break;
        }
    }
    log::info!("ignores targets: begins");
    let until = Instant::now().after(seconds as u64 * 1_000_000_000);
    let is_intact = masked::while_masked(|| {
        let mut is_intact = true;
        while Instant::now() < until {
            is_intact &= verify(&memory);
        }
        is_intact
    });
    if !is_intact {
        log::error!("ignores targets: a word has changed");
        return Outcome::Failure;
    }
    log::info!("ignores targets: ends");
    loop {
        if !verify(&memory) {
            log::error!("ignores targets: a word has changed");
            return Outcome::Failure;
        }
        log::info!("ignores targets: verified");
        app::sleep(1000);
    }
}

/// Returns what a word of a page holds: no two pages are the same, and few of their bytes are.
fn value(page: usize, word: usize) -> [u8; 8] {
    ((page * WORDS + word) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

/// Reads a word of each page, and returns whether it has its value.
fn verify(memory: &[u8]) -> bool {
    memory.chunks_exact(PAGE_BYTES).enumerate().all(|(page, bytes)| {
        let word = page % WORDS;
        black_box(&bytes[8 * word..8 * word + 8]) == value(page, word)
    })
}
