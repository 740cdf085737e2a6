//! Writes to its own code, which ends it.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let code = (main as fn() -> Outcome as *const ()).cast_mut().cast::<u8>();
    log::info!("write code: at {code:p}");
    // SAFETY: it is code, which may be read.
    let byte = unsafe { code.read_volatile() };
    // SAFETY: it is not: the kernel is to end the guest here. The byte is the one that is there
    // already.
    unsafe { code.write_volatile(byte) };
    log::error!("write code: nothing has happened");
    Outcome::Success
}
