//! Gives the upper part of its memory away and then writes to it again and again.

#![no_std]
#![no_main]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::{Command, PORT, Status};
use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES, HUGE_ORDER, HUGE_SIZE};
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// Addresses of 40 MiB at the end of a machine of 64, which nobody uses so early. The kernel maps all memory at its own address.
const GIVEN: Range<usize> = 24 << 20..64 << 20;
const BLOCKS: usize = (GIVEN.end - GIVEN.start) / HUGE_SIZE;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; BLOCKS]>);

// SAFETY: used by the one thread below.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; BLOCKS]));

fn main() -> Outcome {
    let first = GIVEN.start as u64 / HUGE_BYTES;
    let mut words = [0; BLOCKS];
    for (number, word) in (first..).zip(&mut words) {
        *word = Entry::pending(FrameNumber(number * HUGE_FRAMES), HUGE_ORDER).encode();
    }
    // SAFETY: the page is used by this thread and, during a call, by the monitor.
    unsafe { PAGE.0.get().write_volatile(words) };
    let status = give();
    // SAFETY: as above.
    let words = unsafe { PAGE.0.get().read_volatile() };
    if status != Status::Ok.encode() || words.iter().any(|&word| Entry::decode(word).status != EntryStatus::Done) {
        log::error!("touch given: the memory was not taken: status {status}");
        return Outcome::Failure;
    }
    log::info!("touch given: given");
    for round in 1_u64.. {
        for address in GIVEN.step_by(FRAME_SIZE) {
            // SAFETY: none; the memory is mapped and in no use by the kernel so early, but it is not ours, which is what this guest
            // is for.
            unsafe { ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(round) };
        }
        app::sleep(1);
    }
    Outcome::Success
}

/// Gives the batch in the page away; returns the call's status.
fn give() -> u64 {
    let mut status = Command::Give.encode();
    let page = PAGE.0.get().expose_provenance() as u64;
    // SAFETY: the monitor changes the four registers and the batch page.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") status, inout("rdi") page => _, inout("rsi") BLOCKS as u64 => _, inout("r8") 0_u64 => _);
    }
    status
}
