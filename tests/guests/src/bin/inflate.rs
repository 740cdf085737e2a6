//! Touches memory, frees it, and then sleeps, so that the balloon can have that memory.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../patterned.rs"]
mod patterned;

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const BYTES: usize = 256 << 20;

fn main() -> Outcome {
    if let Err(what) = patterned::touch(BYTES, 1) {
        log::error!("inflate: {what}");
        return Outcome::Failure;
    }
    log::info!("inflate: freed");
    loop {
        app::sleep(1000);
    }
}
