//! Uses a part of every huge frame while its balloon inflates to most of the machine. Pages are
//! moved together, so that whole huge frames can be inflated, and every byte stays right.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../pieces.rs"]
mod pieces;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, MemoryInfo, Outcome};
use pieces::{PAGE_WORDS, are_right, reserved, scattered};

aerostat_guest::app!(main);

/// The test lowers the target to this, of 256 MiB of which a quarter is in use.
const SMALL: FrameCount = FrameCount::from_mib(96);
/// Words that are touched of the memory that returns.
const BUSY_WORDS: usize = (128 << 20) / 8;

fn main() -> Outcome {
    match run() {
        Ok(memory) => {
            log::info!("scattered: ok, {} pages moved", memory.moved_pages);
            Outcome::Success
        }
        Err(what) => {
            log::error!("scattered: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<MemoryInfo, &'static str> {
    let pieces = scattered()?;
    log::info!("scattered: ready");
    while app::memory().size > SMALL {
        app::sleep(1);
    }
    let squeezed = app::memory();
    app::validate()?;
    if !are_right(&pieces) {
        return Err("a page has changed");
    }
    log::info!("scattered: shrunk");
    while app::memory().size <= SMALL {
        app::sleep(1);
    }
    let mut busy = reserved(BUSY_WORDS)?;
    let before = app::Instant::now();
    for page in 0..BUSY_WORDS / PAGE_WORDS {
        busy.resize((page + 1) * PAGE_WORDS, page as u64);
    }
    log::info!(
        "scattered: touched 128 MiB of the memory that returned in {} us",
        app::Instant::now().since(before) / 1000
    );
    if !are_right(&pieces) {
        return Err("a page has changed");
    }
    app::validate().map(|()| squeezed)
}
