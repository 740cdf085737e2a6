//! Executes an undefined instruction.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    // SAFETY: the exception ends the guest here.
    unsafe { core::arch::asm!("ud2") };
    Outcome::Success
}
