//! Final reports: what a guest writes to its log before it ends for a reason that it can't repair.
//!
//! Reports wait for no lock and allocate nothing. Each reason has an exit code of its own
//! ([`GuestExit`]).
#![allow(unsafe_code, reason = "walks stack frames")]

use core::arch::asm;
use core::fmt::Display;
use core::ops::Range;
use core::panic::PanicInfo;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::{HUGE_BYTES, to_usize};
use spin::Once;

use crate::arch::x86_64::trap::{Reports, TrapFrame};
use crate::arch::x86_64::{cpu, image, machine_ports, serial};
use crate::layout::STACKS;

const MAX_BACKTRACE: usize = 24;
/// The name of the thread that boots, until there is a thread table.
const BOOT_THREAD: &str = "idle";
/// The names of the exceptions (Intel SDM vol. 3, table 6-1).
const NAMES: [&str; 22] = [
    "division by zero",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved",
    "x87 floating point",
    "alignment check",
    "machine check",
    "SIMD floating point",
    "virtualization",
    "control protection",
];

static CURRENT_THREAD: Once<fn() -> &'static str> = Once::new();

macro_rules! line {
    ($($argument:tt)*) => { serial::write_line(format_args!($($argument)*)) };
}

/// Sets the function that returns the current thread's name. It must not wait for a lock.
pub(crate) fn set_current_thread(name: fn() -> &'static str) {
    CURRENT_THREAD.call_once(|| name);
}

/// The reports about exceptions that nothing resolves.
#[derive(Debug)]
pub(crate) struct ExceptionReports;

impl Reports for ExceptionReports {
    fn exception(&self, frame: &TrapFrame, address: Option<u64>) -> ! {
        machine_ports::begin_end(GuestExit::Exception);
        headline(frame, address);
        state(frame);
        machine_ports::exit(GuestExit::Exception)
    }

    fn masked_fault(&self, frame: &TrapFrame, address: u64) -> ! {
        machine_ports::begin_end(GuestExit::Panic);
        headline(frame, Some(address));
        line!("  a bug of the kernel: upcalls are masked, so a spin lock may be held");
        state(frame);
        machine_ports::exit(GuestExit::Panic)
    }

    fn stack_overflow(&self, frame: &TrapFrame) -> ! {
        machine_ports::begin_end(GuestExit::StackOverflow);
        let bounds = cpu::stack_bounds();
        line!("stack overflow: stack pointer {:#x}, stack {:#x} to {:#x}", frame.rsp, bounds.start, bounds.end);
        state(frame);
        machine_ports::exit(GuestExit::StackOverflow)
    }
}

/// Reports an access that no region allows, and ends the guest.
pub(crate) fn violation(frame: &TrapFrame, address: u64, violation: impl Display) -> ! {
    machine_ports::begin_end(GuestExit::Exception);
    headline(frame, Some(address));
    line!("  {violation}");
    state(frame);
    machine_ports::exit(GuestExit::Exception)
}

/// Reports that there is no frame for a page, and ends the guest.
pub(crate) fn out_of_memory(frame: &TrapFrame, address: u64) -> ! {
    machine_ports::begin_end(GuestExit::OutOfMemory);
    line!(
        "out of memory: there is no frame for the page at {address:#x}, and nothing that swap can take makes room for it"
    );
    state(frame);
    machine_ports::exit(GuestExit::OutOfMemory)
}

/// Reports that a page can't be read from its disk, and ends the guest.
pub(crate) fn disk_error(frame: &TrapFrame, address: u64) -> ! {
    machine_ports::begin_end(GuestExit::DiskError);
    line!("disk error: the page at {address:#x} can't be read from its disk");
    state(frame);
    machine_ports::exit(GuestExit::DiskError)
}

/// Ends the guest because its machine can't be used.
pub(crate) fn bad_machine(reason: impl Display) -> ! {
    machine_ports::begin_end(GuestExit::BadMachine);
    line!("unusable machine: {reason}");
    machine_ports::exit(GuestExit::BadMachine)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    machine_ports::begin_end(GuestExit::Panic);
    match info.location() {
        Some(place) => line!("panicked at {}:{}: {}", place.file(), place.line(), info.message()),
        None => line!("panicked: {}", info.message()),
    }
    let frame: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    backtrace(0, frame);
    machine_ports::exit(GuestExit::Panic)
}

fn headline(frame: &TrapFrame, address: Option<u64>) {
    let name = usize::try_from(frame.vector).ok().and_then(|vector| NAMES.get(vector)).unwrap_or(&"reserved");
    match address {
        Some(address) => line!("exception: {name} at {address:#x}, error code {:#x}", frame.error_code),
        None => line!("exception: {name}, error code {:#x}", frame.error_code),
    }
}

/// Writes the thread's name, its registers and its backtrace.
fn state(frame: &TrapFrame) {
    line!("  thread {}", CURRENT_THREAD.get().map_or(BOOT_THREAD, |name| name()));
    line!("  rip {:#018x} rsp {:#018x} rbp {:#018x} rflags {:#x}", frame.rip, frame.rsp, frame.rbp, frame.rflags);
    line!("  rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}", frame.rax, frame.rbx, frame.rcx, frame.rdx);
    line!("  rsi {:#018x} rdi {:#018x} r8  {:#018x} r9  {:#018x}", frame.rsi, frame.rdi, frame.r8, frame.r9);
    line!("  r10 {:#018x} r11 {:#018x} r12 {:#018x} r13 {:#018x}", frame.r10, frame.r11, frame.r12, frame.r13);
    line!("  r14 {:#018x} r15 {:#018x} cs {:#x} ss {:#x}", frame.r14, frame.r15, frame.cs, frame.ss);
    backtrace(frame.rip, frame.rbp);
}

/// Writes the return addresses, innermost first, while the chain of frame pointers stays on one
/// stack.
fn backtrace(rip: u64, rbp: u64) {
    line!("backtrace:");
    if rip != 0 {
        line!("  {rip:#x}");
    }
    let mut frame = rbp;
    for _ in 0..MAX_BACKTRACE {
        if !frame.is_multiple_of(8) || !is_on_a_stack(frame) {
            return;
        }
        let pointer = core::ptr::with_exposed_provenance::<[u64; 2]>(to_usize(frame));
        // SAFETY: both words lie on the current stack, which is mapped as a whole, or in the image.
        let [next, return_address] = unsafe { pointer.read() };
        if return_address == 0 {
            return;
        }
        line!("  {return_address:#x}");
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// Returns whether a frame of two words at `address` lies on the current thread's stack or on one
/// in the image.
fn is_on_a_stack(address: u64) -> bool {
    let bounds = cpu::stack_bounds();
    let image = image::range();
    let within = |range: &Range<u64>| range.start <= address && address.saturating_add(16) <= range.end;
    (STACKS.contains(&address) && within(&bounds)) || (within(&image) && address >= image.start + HUGE_BYTES / 64)
}
