//! Reads through a null pointer, which the identity map must not make harmless.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let null = core::ptr::with_exposed_provenance::<u64>(core::hint::black_box(0x18));
    // SAFETY: never goes on: the exception ends the guest.
    let _ = unsafe { null.read_volatile() };
    Outcome::Success
}
