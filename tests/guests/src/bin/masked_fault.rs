//! Touches a fresh page while upcalls are masked, like code that holds a spin lock of the kernel.

#![no_std]
#![no_main]

extern crate alloc;

use aerostat_guest::app::Outcome;
use aerostat_guest::app::memory::Mapping;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let Ok(mut memory) = Mapping::anonymous(1) else { return Outcome::Failure };
    // SAFETY: raises the upcall mask, the first word of the CPU block. It is never lowered, as the
    // guest ends with the next instruction.
    unsafe { core::arch::asm!("inc qword ptr gs:[0]") };
    *core::hint::black_box(&mut memory[0]) = 1;
    Outcome::Success
}
