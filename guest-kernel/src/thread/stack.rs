//! The stacks of threads: slots of addresses, a paint that shows how deep a stack was used, and the
//! words with which a new thread begins.
#![allow(unsafe_code, reason = "writes to and reads from stacks")]

use core::ops::Range;

use aerostat_abi::units::to_usize;

use super::switch;
use super::table::ThreadId;
use crate::layout::{STACK_SLOT_BYTES, STACKS};

/// A word of a kernel thread's stack that nothing has written to yet.
const PAINT: u64 = 0x7061_696e_7465_6421;

/// A thread's first function, and what it is called with.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) function: extern "C" fn(u64),
    pub(super) argument: u64,
}

/// Returns the end of the stack of the thread at this place of the table.
pub(super) fn top(thread: ThreadId) -> u64 {
    STACKS.start + (u64::from(thread.0) + 1) * STACK_SLOT_BYTES
}

/// Marks the spare part of a stack as unused.
///
/// # Safety
/// The stack is mapped as a whole, and no thread uses it.
pub(super) unsafe fn paint(stack: &Range<u64>) {
    for word in spare_part(stack) {
        // SAFETY: the caller's duty.
        unsafe { word.write(PAINT) };
    }
}

/// Returns whether the spare part of a painted stack is still unused.
///
/// # Safety
/// The stack is mapped as a whole.
pub(super) unsafe fn is_spare_part_unused(stack: &Range<u64>) -> bool {
    // SAFETY: the caller's duty.
    spare_part(stack).all(|word| unsafe { word.read_volatile() } == PAINT)
}

/// Returns the words of a kernel thread's stack that must stay unused: a quarter, at its lower end.
fn spare_part(stack: &Range<u64>) -> impl Iterator<Item = *mut u64> {
    (stack.start..stack.start + (stack.end - stack.start) / 4)
        .step_by(size_of::<u64>())
        .map(|address| core::ptr::with_exposed_provenance_mut(to_usize(address)))
}

/// Writes the words with which the first switch to a thread arrives in [`switch::thread_start`],
/// with the entry in registers. Returns the stack pointer to switch to.
///
/// # Safety
/// The end of the stack is mapped, and no thread uses it.
pub(super) unsafe fn prepare(stack: &Range<u64>, entry: Entry) -> u64 {
    // In the order in which `switch_stacks` pops: r15, r14, r13, r12, rbx, rbp, return address;
    // then a zero return address.
    let start = switch::thread_start as *const () as usize as u64;
    let words = [0, 0, entry.argument, entry.function as usize as u64, 0, 0, start, 0, 0];
    let rsp = stack.end - size_of_val(&words) as u64;
    let pointer = core::ptr::with_exposed_provenance_mut::<[u64; 9]>(to_usize(rsp));
    // SAFETY: the words lie within the stack; the rest is the caller's duty.
    unsafe { pointer.write(words) };
    rsp
}

/// Returns the addresses of the boot stack; `None` if the boot has used it up.
pub(super) fn boot_stack() -> Option<Range<u64>> {
    unsafe extern "C" {
        static boot_stack_bottom: u8;
        static boot_stack_top: u8;
    }
    let bounds = (&raw const boot_stack_bottom).expose_provenance() as u64
        ..(&raw const boot_stack_top).expose_provenance() as u64;
    let lowest = core::ptr::with_exposed_provenance::<[u64; 8]>(to_usize(bounds.start));
    // SAFETY: the words are the lower end of the boot stack, below which there is no guard page;
    // they are zero unless the stack was used that far.
    let is_unused = unsafe { lowest.read_volatile() } == [0; 8];
    is_unused.then_some(bounds)
}
