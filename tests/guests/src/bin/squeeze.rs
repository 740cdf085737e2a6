//! Works on text-like memory while its balloon needs more than is free. Cold pages are compressed
//! and restored when they are touched, and every byte stays right.

#![no_std]
#![no_main]

extern crate alloc;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

const WORDS: usize = (96 << 20) / 8;
/// The test lowers the target to this while 96 MiB are in use.
const SMALL: FrameCount = FrameCount::from_mib(64);

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("squeeze: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("squeeze: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let mut memory: Vec<u64> = Vec::new();
    memory.try_reserve_exact(WORDS).map_err(|_| "no memory")?;
    memory.extend((0..WORDS).map(|index| text_like(index, 0)));
    log::info!("squeeze: filled");
    while app::memory().size > SMALL {
        app::sleep(1);
    }
    let squeezed = app::memory();
    log::info!(
        "{} pages compressed into {}, {} of one word",
        squeezed.compressed_pages,
        squeezed.compressed_frames,
        squeezed.filled_pages
    );
    if squeezed.compressed_pages == 0 {
        return Err("nothing was compressed");
    }
    for round in 1..4 {
        for (index, word) in memory.iter_mut().enumerate() {
            if *word != text_like(index, round - 1) {
                return Err("a word has changed");
            }
            *word = text_like(index, round);
        }
        app::validate()?;
    }
    let after = app::memory();
    log::info!("{} evictions, {} restores, {} refaults", after.evictions, after.restores, after.refaults);
    drop(memory);
    let freed = app::memory();
    if freed.compressed_pages != 0 || freed.filled_pages != 0 {
        return Err("evicted pages are left of a dropped region");
    }
    app::validate()
}

/// Returns words that repeat for a while, so that pages compress about as well as text. Every
/// fourth page consists of one word.
fn text_like(index: usize, round: u64) -> u64 {
    let page = index / 512;
    if page % 4 == 3 {
        0x2020_2020_2020_2020 + round * 0x0101_0101_0101_0101
    } else {
        0x6c61_6e74_6963_0000 | (((index as u64 / 4).wrapping_mul(31) % 251) << 3) | round
    }
}
