//! Reads through a null pointer, which must fault though the kernel maps memory at its own address.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let null = core::ptr::with_exposed_provenance::<u64>(core::hint::black_box(0x18));
    // SAFETY: the exception ends the guest here.
    let _ = unsafe { null.read_volatile() };
    Outcome::Success
}
