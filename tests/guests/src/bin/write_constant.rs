//! Writes to a constant in its image, which ends the guest.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

static CONSTANT: [u64; 4] = [1, 2, 3, 4];

fn main() -> Outcome {
    let constant = (&raw const CONSTANT).cast_mut().cast::<u64>();
    log::info!("write constant: at {constant:p}");
    // SAFETY: none. The kernel must end the guest here; if it does not, the word stays the same.
    unsafe { constant.write_volatile(1) };
    log::error!("write constant: the guest was not ended");
    Outcome::Success
}
