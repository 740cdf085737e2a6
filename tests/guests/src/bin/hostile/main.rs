//! Attacks its monitor as its command line says, with a file for each deed, and succeeds if it got
//! the right answers. No deed may harm anything but this guest.

#![no_std]
#![no_main]

extern crate alloc;

mod calls;
mod huge_frame;
mod lies;
mod registers;
mod requests;
mod rings;
mod session;
mod sharing;
mod strings;
mod stubborn;
mod tables;

#[path = "../../port.rs"]
mod port;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameNumber;
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// Frames of a machine of 64 MiB, or of the first grant of a larger one, that the kernel has not
/// used yet: 24 MiB to 64 MiB.
const SPARE: core::ops::Range<FrameNumber> = FrameNumber(24 << 8)..FrameNumber(64 << 8);

/// A wrong answer.
type Wrong = &'static str;

fn main() -> Outcome {
    let mut words = app::words();
    let deed = words.next().unwrap_or_default();
    let count = words.next().and_then(|count| count.parse().ok()).unwrap_or_default();
    log::info!("hostile: {deed}");
    let outcome = match deed {
        "calls" => calls::make(count),
        "session" => session::break_off(),
        "huge_frame" => huge_frame::inflate_and_deflate(),
        "lies" => lies::tell(),
        "requests" => requests::flood(),
        "registers" => registers::write_all(),
        "resets" => session::reset(count),
        "rings" => rings::inflate(),
        "share" => sharing::ask_for_nonsense(),
        "flicker" => sharing::flicker(),
        "strings" => strings::write(),
        "tables" => tables::inflate(),
        "deaf" => stubborn::never_listen(),
        "slow" => stubborn::listen_slowly(),
        _ => Err("the command line names no deed"),
    };
    match outcome {
        Ok(()) => log::info!("hostile: ok"),
        Err(what) => log::error!("hostile: {what}"),
    }
    // The kernel may not be able to go on.
    port::exit(if outcome.is_ok() { GuestExit::Success } else { GuestExit::Failure })
}

/// Returns `what` as an error unless `holds`.
fn expect(holds: bool, what: Wrong) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(what) }
}
