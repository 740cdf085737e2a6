//! Writes to ports without a device in every width, and to the balloon port in widths that it does
//! not accept.

#![no_std]
#![no_main]

use core::arch::asm;

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

const PORTS: [u16; 5] = [0x80, 0x60, 0xcf8, 0xae50, 0xae58];

fn main() -> Outcome {
    for port in PORTS {
        // SAFETY: no port touches the guest's memory. 0xae50 is the balloon port, which accepts
        // only 32 bits.
        unsafe { asm!("out dx, al", in("dx") port, in("al") 0xee_u8) };
        // SAFETY: as above.
        unsafe { asm!("out dx, ax", in("dx") port, in("ax") 0xeeee_u16) };
        let value: u8;
        // SAFETY: as above.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value) };
        if port == 0xae50 && value != 0xff {
            log::error!("unknown ports: port {port:#x} reads {value:#x}");
            return Outcome::Failure;
        }
    }
    log::info!("unknown ports: ok");
    Outcome::Success
}
