//! The table of fixed hardware (ACPI 6.5, 5.2.9): how to power off and to reset the machine.

use super::tables::Table;
use crate::arch::x86_64::boot::physical_memory::PhysicalMemory;
use crate::arch::x86_64::power::{PowerRegisters, Register, Reset, SleepControl, SleepType};
use crate::layout::{DEVICE_HOLE, IO_APIC};

const DSDT: u64 = 40;
const PM1A_CONTROL: u64 = 64;
const PM1B_CONTROL: u64 = 68;
const FLAGS: u64 = 112;
const RESET_REGISTER: u64 = 116;
const RESET_VALUE: u64 = 128;
const LONG_DSDT: u64 = 140;
const LONG_PM1A_CONTROL: u64 = 172;
const LONG_PM1B_CONTROL: u64 = 184;
const SLEEP_CONTROL: u64 = 244;

const HAS_RESET_REGISTER: u32 = 1 << 10;
/// There are no PM1 registers; the sleep control register takes their place.
const IS_HARDWARE_REDUCED: u32 = 1 << 20;

/// Address spaces of a generic address (ACPI 6.5, 5.2.3.2).
const SPACE_MEMORY: u8 = 0;
const SPACE_IO: u8 = 1;

/// Returns where the table with the machine's devices is.
pub(super) fn dsdt_address(table: &Table<'_, impl PhysicalMemory>) -> u64 {
    match table.u64(LONG_DSDT) {
        0 => table.u32(DSDT).into(),
        address => address,
    }
}

/// Returns the registers of the machine's power; the values that they take to sleep are in another
/// table.
pub(super) fn power(table: &Table<'_, impl PhysicalMemory>, sleep_type: Option<SleepType>) -> PowerRegisters {
    let flags = table.u32(FLAGS);
    let reset = (flags & HAS_RESET_REGISTER != 0).then(|| generic_address(table, RESET_REGISTER)).flatten();
    let pm1 = |long, short| {
        let port = || u16::try_from(table.u32(short)).ok().filter(|port| *port != 0).map(Register::Port);
        generic_address(table, long).or_else(port)
    };
    let (is_reduced, types) = (flags & IS_HARDWARE_REDUCED != 0, sleep_type);
    let sleep = types.and_then(|types| {
        if is_reduced {
            return generic_address(table, SLEEP_CONTROL).map(|register| SleepControl::Reduced { register, types });
        }
        let first = pm1(LONG_PM1A_CONTROL, PM1A_CONTROL)?;
        Some(SleepControl::Fixed { first, second: pm1(LONG_PM1B_CONTROL, PM1B_CONTROL), types })
    });
    PowerRegisters { sleep, reset: reset.map(|register| Reset { register, value: table.u8(RESET_VALUE) }) }
}

/// Reads a generic address: a port, or registers in the device hole.
fn generic_address(table: &Table<'_, impl PhysicalMemory>, offset: u64) -> Option<Register> {
    let address = table.u64(offset + 4);
    match table.u8(offset) {
        _ if address == 0 => None,
        SPACE_IO => u16::try_from(address).ok().map(Register::Port),
        SPACE_MEMORY if (DEVICE_HOLE.start..IO_APIC).contains(&address) => Some(Register::Memory(address)),
        _ => None,
    }
}
