//! What can be read from the table of the machine's devices without an interpreter of its language
//! (ACPI 6.5, 20.2): names with constants, which machines write the same way.
//!
//! A scan finds a name by its bytes, and takes what follows only if it has the one form that is
//! known. Whatever else it meets, it goes on.

use super::tables::{HEADER_BYTES, Table};
use crate::arch::x86_64::boot::devices::{Ecam, Interrupt, VirtioDescription};
use crate::arch::x86_64::boot::physical_memory::PhysicalMemory;
use crate::arch::x86_64::power::SleepType;

const NAME: u8 = 0x08;
const ROOT: u8 = b'\\';
const PACKAGE: u8 = 0x12;
const METHOD: u8 = 0x14;
const RETURN: u8 = 0xa4;
const ZERO: u8 = 0x00;
const ONE: u8 = 0x01;
const BYTE: u8 = 0x0a;
const WORD: u8 = 0x0b;
const DOUBLE_WORD: u8 = 0x0c;

/// The identity of a virtio device over MMIO, a string.
const VIRTIO: &[u8] = b"LNRO0005\0";
/// How far behind its identity the resources of such a device are looked for.
const DEVICE_BYTES: u64 = 128;
/// The beginnings of the descriptors of registers and of an interrupt (ACPI 6.5, 6.4.3).
const FIXED_MEMORY: &[u8] = &[0x86, 9, 0];
const EXTENDED_INTERRUPT: &[u8] = &[0x89, 6, 0];

/// Returns the values that power the machine off: the package `_S5_`.
pub(super) fn sleep_type(table: &Table<'_, impl PhysicalMemory>) -> Option<SleepType> {
    places(table, b"_S5_").find_map(|at| {
        let is_name = table.u8(at - 1) == NAME || (table.u8(at - 1) == ROOT && table.u8(at - 2) == NAME);
        if !is_name || table.u8(at + 4) != PACKAGE {
            return None;
        }
        // The first byte of a package's length says how many follow.
        let count = at + 5 + 1 + u64::from(table.u8(at + 5) >> 6);
        let (first, next) = constant(table, count + 1)?;
        let second = if table.u8(count) > 1 { constant(table, next)?.0 } else { 0 };
        let value = |value: u32| u8::try_from(value).ok().filter(|value| *value < 8);
        Some(SleepType { first: value(first)?, second: value(second)? })
    })
}

/// Returns where the configuration space of the first PCI bus is, for machines without a table that
/// says so: what the method `_CBA` returns.
pub(super) fn ecam(table: &Table<'_, impl PhysicalMemory>) -> Option<Ecam> {
    places(table, b"_CBA").find_map(|at| {
        let address = match (table.u8(at - 2), table.u8(at - 1), table.u8(at + 5)) {
            (METHOD, _, RETURN) => constant(table, at + 6)?.0,
            (_, NAME, _) => constant(table, at + 4)?.0,
            _ => return None,
        };
        Some(Ecam { address: address.into(), last_bus: u8::MAX })
    })
}

/// Calls `receive` with each virtio device over MMIO.
pub(super) fn virtio_devices(table: &Table<'_, impl PhysicalMemory>, receive: &mut dyn FnMut(VirtioDescription)) {
    for at in places(table, VIRTIO) {
        let find = |descriptor: &[u8]| (at..at + DEVICE_BYTES).find(|at| table.has(*at, descriptor));
        let (Some(memory), Some(interrupt)) = (find(FIXED_MEMORY), find(EXTENDED_INTERRUPT)) else { continue };
        let Ok(number) = u8::try_from(table.u32(interrupt + 5)) else { continue };
        receive(VirtioDescription {
            registers: table.u32(memory + 4).into(),
            bytes: table.u32(memory + 8).into(),
            interrupt: Interrupt::Pin(number),
        });
    }
}

/// Returns where these bytes are, behind the header.
fn places<M: PhysicalMemory>(table: &Table<'_, M>, bytes: &[u8]) -> impl Iterator<Item = u64> {
    (HEADER_BYTES..table.bytes()).filter(move |at| table.has(*at, bytes))
}

/// Reads a constant, and returns it with the place behind it.
fn constant(table: &Table<'_, impl PhysicalMemory>, at: u64) -> Option<(u32, u64)> {
    let (value, next) = match table.u8(at) {
        ZERO => (0, at + 1),
        ONE => (1, at + 1),
        BYTE => (table.u8(at + 1).into(), at + 2),
        WORD => (table.u16(at + 1).into(), at + 3),
        DOUBLE_WORD => (table.u32(at + 1), at + 5),
        _ => return None,
    };
    (next <= table.bytes()).then_some((value, next))
}
