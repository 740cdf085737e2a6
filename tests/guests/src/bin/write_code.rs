//! Writes to its own code, which ends the guest.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let code = (main as fn() -> Outcome as *const ()).cast_mut().cast::<u8>();
    log::info!("write code: at {code:p}");
    // SAFETY: code may be read.
    let byte = unsafe { code.read_volatile() };
    // SAFETY: none. The kernel must end the guest here; if it does not, the byte stays the same.
    unsafe { code.write_volatile(byte) };
    log::error!("write code: the guest was not ended");
    Outcome::Success
}
