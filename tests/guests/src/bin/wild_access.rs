//! Writes to an address in no region.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let nowhere = core::ptr::with_exposed_provenance_mut::<u64>(0xdead_0000);
    // SAFETY: the exception ends the guest here.
    unsafe { nowhere.write_volatile(1) };
    Outcome::Success
}
