//! Ends the driver's session with the monitor while the balloon holds memory. The driver begins a
//! new session, and both sides go on with the same balloon.

#![no_std]
#![no_main]

extern crate alloc;

#[path = "../patterned.rs"]
mod patterned;
#[path = "../port.rs"]
mod port;

use aerostat_abi::port::{Command, Status};
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
        if port::call(Command::Reset, 0, 0) != Some(Status::Ok) {
            return Err("the driver had not begun a new session");
        }
        app::report(0, 0, "has the driver make a call");
        app::sleep(PAUSE_MS);
        app::validate()?;
        if app::memory().size > SMALL {
            return Err("the balloon was deflated");
        }
    }
    log::info!("begin anew: shrunk");
    while app::memory().size <= SMALL {
        app::sleep(1);
    }
    patterned::touch(BYTES, 2)?;
    app::validate()
}
