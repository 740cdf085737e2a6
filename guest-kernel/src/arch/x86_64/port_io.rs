//! Port instructions. The task state opens every port to ring 3 (`ring0`).
//!
//! No port that the kernel accesses makes a device write to the guest's memory, so the functions
//! are safe.
#![allow(unsafe_code, reason = "port instructions")]

use core::arch::asm;

/// Reads a byte from a port.
pub(crate) fn in_byte(port: u16) -> u8 {
    let value;
    // SAFETY: see the head of the module.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads 16 bits from a port.
pub(crate) fn in_word(port: u16) -> u16 {
    let value;
    // SAFETY: see the head of the module.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads 32 bits from a port.
pub(crate) fn in_dword(port: u16) -> u32 {
    let value;
    // SAFETY: see the head of the module.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port.
pub(crate) fn out_byte(port: u16, value: u8) {
    // SAFETY: see the head of the module.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes 16 bits to a port.
pub(crate) fn out_word(port: u16, value: u16) {
    // SAFETY: see the head of the module.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes 32 bits to a port.
pub(crate) fn out_dword(port: u16, value: u32) {
    // SAFETY: see the head of the module.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}
