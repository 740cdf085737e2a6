//! Inflates the upper part of its memory without its driver, and then writes to it again and again.

#![no_std]
#![no_main]

#[path = "../port.rs"]
mod port;

use core::ops::Range;
use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Command;
use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES, HUGE_ORDER, HUGE_SIZE};
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// Addresses of 40 MiB at the end of a machine of 64, which the kernel has not used yet. It maps
/// all memory at its own address.
const BALLOONED: Range<usize> = 24 << 20..64 << 20;
const BLOCKS: usize = (BALLOONED.end - BALLOONED.start) / HUGE_SIZE;

fn main() -> Outcome {
    let first = BALLOONED.start as u64 / HUGE_BYTES;
    let block = |index| Entry::pending(FrameNumber((first + index as u64) * HUGE_FRAMES), HUGE_ORDER);
    let (status, _, entries) = port::batch(Command::Inflate, core::array::from_fn::<_, BLOCKS, _>(block));
    if entries.iter().any(|entry| entry.status != EntryStatus::Done) {
        log::error!("touch ballooned: the memory was not inflated: status {status:?}");
        return Outcome::Failure;
    }
    log::info!("touch ballooned: inflated");
    for round in 1_u64.. {
        for address in BALLOONED.step_by(FRAME_SIZE) {
            // SAFETY: none. The memory is mapped and not in use, but it is ballooned: writing to it
            // is the purpose of this guest.
            unsafe { ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(round) };
        }
        app::sleep(1);
    }
    Outcome::Success
}
