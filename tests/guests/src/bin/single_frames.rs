//! Inflates huge frames that the host backs, deflates single frames of them, one at a time, and
//! writes to each.

#![no_std]
#![no_main]

#[path = "../port.rs"]
mod port;

use core::ops::Range;
use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::{Command, Status};
use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES, HUGE_ORDER, to_usize};
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// Addresses of 40 MiB at the end of a machine of 64, which the kernel has not used yet. It maps
/// all memory at its own address.
const BALLOONED: Range<usize> = 24 << 20..64 << 20;
/// The numbers of these huge frames.
const HUGE: Range<u64> = BALLOONED.start as u64 / HUGE_BYTES..BALLOONED.end as u64 / HUGE_BYTES;
/// Frames of each huge frame that are deflated.
const DEFLATED: u64 = 8;
/// The distance between two of them, in frames.
const APART: u64 = HUGE_FRAMES / DEFLATED;

fn main() -> Outcome {
    if let Err(what) = run() {
        log::error!("single frames: not {what}");
        return Outcome::Failure;
    }
    log::info!("single frames: touched");
    // The test reads the resident memory while the guest runs.
    loop {
        app::sleep(1000);
    }
}

fn run() -> Result<(), &'static str> {
    BALLOONED.step_by(FRAME_SIZE).for_each(touch);
    for huge in HUGE {
        call(Command::Inflate, huge * HUGE_FRAMES, HUGE_ORDER).ok_or("inflated")?;
    }
    for frame in (0..DEFLATED).flat_map(|place| HUGE.map(move |huge| huge * HUGE_FRAMES + place * APART)) {
        call(Command::Deflate, frame, 0).ok_or("deflated")?;
        touch(to_usize(FrameNumber(frame).address()));
    }
    // The monitor measures resident memory with every INFLATE.
    call(Command::Inflate, HUGE.start * HUGE_FRAMES, 0).ok_or("inflated again")
}

fn touch(address: usize) {
    // SAFETY: the memory is mapped, and the kernel has not used it yet.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(1) };
}

/// Makes a call with a single entry; `None` unless the entry is done.
fn call(command: Command, frame: u64, order: u8) -> Option<()> {
    let (status, _, [entry]) = port::batch(command, [Entry::pending(FrameNumber(frame), order)]);
    (status == Some(Status::Ok) && entry.status == EntryStatus::Done).then_some(())
}
