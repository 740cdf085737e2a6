//! Writes to a constant in its image, which ends it.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

static CONSTANT: [u64; 4] = [1, 2, 3, 4];

fn main() -> Outcome {
    let constant = (&raw const CONSTANT).cast_mut().cast::<u64>();
    log::info!("write constant: at {constant:p}");
    // SAFETY: it is not: the kernel is to end the guest here. The word is the one that is there
    // already.
    unsafe { constant.write_volatile(1) };
    log::error!("write constant: nothing has happened");
    Outcome::Success
}
