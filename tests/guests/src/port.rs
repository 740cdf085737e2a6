//! The balloon port by hand, for guests that use it as no driver would.
#![allow(dead_code, reason = "each guest uses a part")]

use core::arch::asm;
use core::cell::UnsafeCell;

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::exit::{EXIT_PORT, GuestExit};
use aerostat_abi::port::{Command, PORT, Registers, Status};

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: used by one thread of a guest and, during a call, by the monitor.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));

/// Where batches and reports lie: in the image.
pub(crate) fn page() -> u64 {
    PAGE.0.get().expose_provenance() as u64
}

/// Writes the first words of the page.
pub(crate) fn write(words: &[u64]) {
    for (index, word) in words.iter().enumerate().take(CAPACITY) {
        // SAFETY: within the page, which this thread alone uses; the monitor may read it, hence
        // volatile.
        unsafe { place(index).write_volatile(*word) };
    }
}

/// A word of the page as the monitor has left it.
pub(crate) fn read(index: usize) -> u64 {
    assert!(index < CAPACITY, "the page has so many words");
    // SAFETY: as in `write`.
    unsafe { place(index).read_volatile() }
}

fn place(index: usize) -> *mut u64 {
    PAGE.0.get().cast::<u64>().wrapping_add(index)
}

/// A call with any registers.
pub(crate) fn raw_call(mut registers: Registers) -> Registers {
    let Registers { rax, rdi, rsi, r8 } = &mut registers;
    // SAFETY: the monitor changes the four registers, and memory that the call names.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") *rax, inout("rdi") *rdi, inout("rsi") *rsi, inout("r8") *r8);
    };
    registers
}

/// A call with two arguments; the status, if it is one.
pub(crate) fn call(command: Command, first: u64, second: u64) -> Option<Status> {
    Status::decode(raw_call(Registers { rax: command.encode(), rdi: first, rsi: second, r8: 0 }).rax)
}

/// A batch in the page: the call's status, the frames done, and what became of the entries.
pub(crate) fn batch<const COUNT: usize>(
    command: Command,
    entries: [Entry; COUNT],
) -> (Option<Status>, u64, [Entry; COUNT]) {
    write(&entries.map(Entry::encode));
    let call = Registers { rax: command.encode(), rdi: page(), rsi: COUNT as u64, r8: 0 };
    let reply = raw_call(call);
    (Status::decode(reply.rax), reply.rdi, core::array::from_fn(|index| Entry::decode(read(index))))
}

/// From now on nothing else runs in this guest: its balloon driver neither.
pub(crate) fn mask_upcalls() {
    // SAFETY: raises the upcall mask, the first word of the CPU block, which is never lowered
    // again.
    unsafe { asm!("inc qword ptr gs:[0]") };
}

/// Ends the guest at once, whatever state its kernel is in.
pub(crate) fn exit(exit: GuestExit) -> ! {
    loop {
        // SAFETY: the exit port does nothing to the guest's memory.
        unsafe { asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") u32::from(exit.encode())) };
    }
}
