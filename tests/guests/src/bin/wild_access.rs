//! Writes to an address that belongs to nobody.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let nowhere = core::ptr::with_exposed_provenance_mut::<u64>(0xdead_0000);
    // SAFETY: never goes on: the exception ends the guest.
    unsafe { nowhere.write_volatile(1) };
    Outcome::Success
}
