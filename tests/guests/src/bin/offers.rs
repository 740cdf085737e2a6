//! Touches memory, frees it, masks upcalls and loops for ever, so that the host can only reclaim
//! offered memory.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../masked.rs"]
mod masked;
#[path = "../patterned.rs"]
mod patterned;

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

const BYTES: usize = 256 << 20;

fn main() -> Outcome {
    if let Err(what) = patterned::touch(BYTES, 1) {
        log::error!("offers: {what}");
        return Outcome::Failure;
    }
    log::info!("offers: freed");
    masked::stay_masked()
}
