//! The assembly of a context switch.
#![allow(unsafe_code, reason = "switches stacks")]

use core::arch::naked_asm;

use super::scheduler::{exit, finish_switch};

/// The first code of a thread: entry in R12, argument in R13.
#[unsafe(naked)]
pub(super) extern "C" fn thread_start() {
    naked_asm!(
        "mov edi, 1",
        "call {finish_switch}",
        "mov rdi, r13",
        "call r12",
        "call {exit}",
        "ud2",
        finish_switch = sym finish_switch,
        exit = sym exit,
    );
}

/// Saves this thread's state on its stack and continues with another's.
///
/// # Safety
/// `save` is valid for writes, and `load` is a stack pointer that this function has saved or that
/// [`super::stack::prepare`] has returned, and that was not loaded since.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn switch_stacks(save: *mut u64, load: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    );
}
