//! Masks upcalls and never comes back.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    log::info!("masked loop: begins");
    // SAFETY: raises the upcall mask, the first word of the CPU block, and never lowers it: this guest does nothing else.
    unsafe { core::arch::asm!("inc qword ptr gs:[0]") };
    loop {
        core::hint::spin_loop();
    }
}
