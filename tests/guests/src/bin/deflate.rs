//! Touches memory, frees it, waits until it was inflated and deflated, and checks every byte of it.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../patterned.rs"]
mod patterned;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const BYTES: usize = 256 << 20;
const SMALL: FrameCount = FrameCount::from_mib(64);

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("deflate: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("deflate: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    patterned::touch(BYTES, 1)?;
    log::info!("deflate: freed");
    while app::memory().size > SMALL {
        app::sleep(1);
    }
    log::info!("deflate: shrunk");
    while app::memory().size <= SMALL {
        app::sleep(1);
    }
    patterned::touch(BYTES, 2)?;
    app::validate()
}
