//! The I/O APIC (82093AA data sheet, chapter 3): devices of other monitors interrupt through its
//! pins.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use aerostat_abi::units::to_usize;

use crate::arch::x86_64::boot::interrupt_controllers::Pin;
use crate::mm;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
/// First of the redirection entries, which have two words each.
const REDIRECTION: u32 = 0x10;

/// Routes `pin` to `vector` on the first CPU: fixed delivery, edge-triggered, active high.
///
/// A level would raise the interrupt again and again, as the ring-0 stub ends it before the driver
/// can acknowledge it at the device (decision 0105).
pub(crate) fn route(pin: Pin, vector: u8) {
    mm::map_registers(pin.io_apic);
    let entry = REDIRECTION + 2 * u32::from(pin.number);
    write(pin.io_apic, entry + 1, 0); // to the local APIC with the identity 0
    write(pin.io_apic, entry, u32::from(vector));
}

fn write(io_apic: u64, register: u32, value: u32) {
    let at = |offset| core::ptr::with_exposed_provenance_mut::<u32>(to_usize(io_apic + offset));
    // SAFETY: the registers are mapped, and this one selects the register of the next access.
    unsafe { at(SELECT).write_volatile(register) };
    // SAFETY: as above; a redirection entry does nothing to memory, and the vector it raises has a
    // gate.
    unsafe { at(WINDOW).write_volatile(value) };
}
