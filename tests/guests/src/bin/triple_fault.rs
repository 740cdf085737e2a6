//! Clears its own page tables.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

unsafe extern "C" {
    static mut boot_pml4: [u64; 512];
}

fn main() -> Outcome {
    let tables = &raw mut boot_pml4;
    // SAFETY: none. Ending the machine is the purpose of this guest.
    unsafe { tables.write_volatile([0; 512]) };
    // SAFETY: as above. Number 1 asks the ring-0 stub to flush all translations.
    unsafe { core::arch::asm!("int3", inout("rax") 1_u64 => _) };
    Outcome::Success
}
