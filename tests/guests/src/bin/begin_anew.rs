//! Ends the session with the monitor behind its driver's back, with a balloon in between: the
//! driver begins anew, and both go on with the balloon that there is.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../patterned.rs"]
mod patterned;

use core::arch::asm;

use aerostat_abi::port::{Command, PORT, Status};
use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const BYTES: usize = 256 << 20;
const SMALL: FrameCount = FrameCount::from_mib(64);
const ENDS: usize = 5;
/// Long enough for the driver to make a call.
const PAUSE_MS: u64 = 100;

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("begin anew: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("begin anew: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    patterned::touch(BYTES, 1)?;
    log::info!("begin anew: freed");
    while app::memory().size > SMALL {
        app::sleep(1);
    }
    for _ in 0..ENDS {
        if end_session() != Status::Ok.encode() {
            return Err("the driver had not begun anew");
        }
        app::report(0, 0, "has the driver make a call");
        app::sleep(PAUSE_MS);
        app::validate()?;
        if app::memory().size > SMALL {
            return Err("the balloon was emptied");
        }
    }
    log::info!("begin anew: shrunk");
    while app::memory().size <= SMALL {
        app::sleep(1);
    }
    patterned::touch(BYTES, 2)?;
    app::validate()
}

/// RESET; returns the status.
fn end_session() -> u64 {
    let mut status = Command::Reset.encode();
    // SAFETY: the monitor changes the four registers.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") status, inout("rdi") 0_u64 => _, inout("rsi") 0_u64 => _, inout("r8") 0_u64 => _);
    }
    status
}
