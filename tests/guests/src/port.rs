//! Calls to the balloon port without the driver, for guests that use it as no driver would.
#![allow(dead_code, reason = "each guest uses a part")]

use core::arch::asm;
use core::cell::UnsafeCell;

use aerostat_abi::batch::{CAPACITY, Entry};
use aerostat_abi::exit::{EXIT_PORT, GuestExit};
use aerostat_abi::port::{Command, PORT, Registers, Status};

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u64; CAPACITY]>);

// SAFETY: only one thread of a guest uses it, and the monitor does during a call.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; CAPACITY]));

/// Returns the address of the page for batches and reports, which is in the image.
pub(crate) fn page() -> u64 {
    PAGE.0.get().expose_provenance() as u64
}

/// Writes the first words of the page.
pub(crate) fn write(words: &[u64]) {
    for (index, word) in words.iter().enumerate().take(CAPACITY) {
        // SAFETY: within the page, which only this thread uses. The access is volatile, as the
        // monitor reads it.
        unsafe { place(index).write_volatile(*word) };
    }
}

/// Returns a word of the page as the monitor has written it.
pub(crate) fn read(index: usize) -> u64 {
    assert!(index < CAPACITY, "the page has no word {index}");
    // SAFETY: as in `write`.
    unsafe { place(index).read_volatile() }
}

fn place(index: usize) -> *mut u64 {
    PAGE.0.get().cast::<u64>().wrapping_add(index)
}

/// Makes a call with any registers; returns those that the monitor leaves.
pub(crate) fn raw_call(mut registers: Registers) -> Registers {
    let Registers { rax, rdi, rsi, r8 } = &mut registers;
    // SAFETY: the monitor changes the four registers and the memory that the call names.
    unsafe {
        asm!("out dx, eax", in("dx") PORT, inout("rax") *rax, inout("rdi") *rdi, inout("rsi") *rsi, inout("r8") *r8);
    };
    registers
}

/// Makes a call with two arguments; returns the status, if it is one.
pub(crate) fn call(command: Command, first: u64, second: u64) -> Option<Status> {
    Status::decode(raw_call(Registers { rax: command.encode(), rdi: first, rsi: second, r8: 0 }).rax)
}

/// Makes a call with a batch in the page; returns the call's status, the number of frames done, and
/// the entries with their statuses.
pub(crate) fn batch<const COUNT: usize>(
    command: Command,
    entries: [Entry; COUNT],
) -> (Option<Status>, u64, [Entry; COUNT]) {
    write(&entries.map(Entry::encode));
    let call = Registers { rax: command.encode(), rdi: page(), rsi: COUNT as u64, r8: 0 };
    let reply = raw_call(call);
    (Status::decode(reply.rax), reply.rdi, core::array::from_fn(|index| Entry::decode(read(index))))
}

/// Masks upcalls for ever, so that no other thread of this guest runs, its balloon driver included.
pub(crate) fn mask_upcalls() {
    // SAFETY: raises the upcall mask, the first word of the CPU block. It is never lowered again.
    unsafe { asm!("inc qword ptr gs:[0]") };
}

/// Ends the guest at once, in any state of its kernel.
pub(crate) fn exit(exit: GuestExit) -> ! {
    loop {
        // SAFETY: the exit port does nothing to the guest's memory.
        unsafe { asm!("out dx, eax", in("dx") EXIT_PORT, in("eax") u32::from(exit.encode())) };
    }
}
