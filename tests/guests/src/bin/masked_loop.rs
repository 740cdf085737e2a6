//! Masks upcalls and loops for ever.

#![no_std]
#![no_main]

#[path = "../masked.rs"]
mod masked;

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    log::info!("masked loop: begins");
    masked::stay_masked()
}
