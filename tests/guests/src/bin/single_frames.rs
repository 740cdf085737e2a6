//! Gives whole huge frames that the host backs, takes single frames of them back, one at a time,
//! and writes to each.

#![no_std]
#![no_main]

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::{Command, PORT, Status};
use aerostat_abi::units::{FRAME_SIZE, FrameNumber, HUGE_BYTES, HUGE_FRAMES, HUGE_ORDER, to_usize};
use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

/// Addresses of 40 MiB at the end of a machine of 64, which nobody uses so early. The kernel maps
/// all memory at its own address.
const BALLOONED: Range<usize> = 24 << 20..64 << 20;
/// The same in huge frames.
const HUGE: Range<u64> = BALLOONED.start as u64 / HUGE_BYTES..BALLOONED.end as u64 / HUGE_BYTES;
/// Frames that are taken back of each huge frame, so far apart.
const RECLAIMED: u64 = 8;
const APART: u64 = HUGE_FRAMES / RECLAIMED;

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: used by the one thread below.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));

fn main() -> Outcome {
    if let Err(what) = run() {
        log::error!("single frames: not {what}");
        return Outcome::Failure;
    }
    log::info!("single frames: touched");
    // What is resident is looked at while the guest is there.
    loop {
        app::sleep(1000);
    }
}

fn run() -> Result<(), &'static str> {
    BALLOONED.step_by(FRAME_SIZE).for_each(touch);
    for huge in HUGE {
        call(Command::Inflate, huge * HUGE_FRAMES, HUGE_ORDER).ok_or("given")?;
    }
    for frame in (0..RECLAIMED).flat_map(|place| HUGE.map(move |huge| huge * HUGE_FRAMES + place * APART)) {
        call(Command::Deflate, frame, 0).ok_or("taken")?;
        touch(to_usize(FrameNumber(frame).address()));
    }
    // The monitor measures what is resident with every INFLATE.
    call(Command::Inflate, HUGE.start * HUGE_FRAMES, 0).ok_or("given again")
}

fn touch(address: usize) {
    // SAFETY: the memory is mapped and in no use by the kernel so early.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(address).write_volatile(1) };
}

/// A call through the balloon port with a single entry, which has to be done.
fn call(command: Command, frame: u64, order: u8) -> Option<()> {
    let first = PAGE.0.get().cast::<u64>();
    // SAFETY: the page is used by this thread and, during a call, by the monitor.
    unsafe { first.write_volatile(Entry::pending(FrameNumber(frame), order).encode()) };
    let mut status = command.encode();
    let page = PAGE.0.get().expose_provenance() as u64;
    // SAFETY: the monitor changes the four registers and the batch page.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") status, inout("rdi") page => _, inout("rsi") 1_u64 => _, inout("r8") 0_u64 => _);
    }
    // SAFETY: as above.
    let word = unsafe { first.read_volatile() };
    (status == Status::Ok.encode() && Entry::decode(word).status == EntryStatus::Done).then_some(())
}
