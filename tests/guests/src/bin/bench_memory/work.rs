//! Measures random access to a working set, in a guest that was squeezed to `size=N` MiB or never
//! was larger.

use core::hint::black_box;

use aerostat_abi::units::{FrameCount, to_usize};
use aerostat_guest::app::{self, Outcome};
use alloc::vec;
use alloc::vec::Vec;

use crate::measured;

/// The size of the working set.
const SET: FrameCount = FrameCount::from_mib(64);
const WORDS: usize = to_usize(SET.bytes()) / 8;
const STEPS: usize = 1 << 22;
const ROUNDS: usize = 9;

pub(crate) fn measure() -> Outcome {
    let size = app::arguments().split_whitespace().find_map(|word| word.strip_prefix("size=")?.parse().ok());
    let Some(size) = size.map(FrameCount::from_mib) else {
        log::error!("bench memory: name the size to which the guest is squeezed, such as size=128");
        return Outcome::Failure;
    };
    let memory = app::memory();
    if memory.size > size {
        // A guest that was larger has used its memory: its frames are backed, and its free memory
        // is fragmented.
        let used = memory.free.saturating_sub(SET).mib();
        use_and_free(usize::try_from(used).unwrap_or(0));
    }
    let mut words = vec![0_u64; WORDS];
    work(&mut words, WORDS);
    log::info!("work: ready");
    while app::memory().size > size {
        app::sleep(1);
    }
    for _ in 0..ROUNDS {
        measured("work", STEPS, || work(black_box(&mut words), STEPS));
    }
    log::info!("work: {} evictions", app::memory().evictions);
    Outcome::Success
}

/// Touches so many MiB in small and in large regions, and frees every other region before the rest.
fn use_and_free(mib: usize) {
    for bytes in [1 << 20, 6 << 20] {
        let count = (mib.saturating_sub(16) << 20) / (2 * bytes);
        let mut regions: Vec<_> = (0..count).map(|_| vec![1_u8; bytes]).collect();
        let mut is_kept = false;
        regions.retain(|_| {
            is_kept = !is_kept;
            is_kept
        });
        black_box(&regions);
    }
}

/// Reads and writes words in an order that no prefetcher predicts.
fn work(words: &mut [u64], steps: usize) {
    let mut state = 1_u64;
    for step in 0..steps {
        // Steps of xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let place = usize::try_from(state % words.len() as u64).unwrap_or(0);
        let word = &mut words[place];
        *word = word.wrapping_add(step as u64);
    }
}
