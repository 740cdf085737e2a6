//! Touches memory, frees it, masks upcalls and never comes back: what the host wants it has to take
//! by itself.

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
