//! The table of interrupt controllers (ACPI 6.5, 5.2.12).

use super::tables::Table;
use crate::arch::x86_64::boot::interrupt_controllers::{InterruptControllers, IoApicDescription};
use crate::arch::x86_64::boot::physical_memory::PhysicalMemory;

const FIRST_ENTRY: u64 = 44;
const IO_APIC: u8 = 1;
const OVERRIDE: u8 = 2;
/// Bytes of these entries.
const IO_APIC_BYTES: u8 = 12;
const OVERRIDE_BYTES: u8 = 10;

/// Reads which I/O APICs there are, and which lines of the old controllers are connected to other
/// pins. An entry without a length ends the table.
pub(super) fn read(table: &Table<'_, impl PhysicalMemory>) -> InterruptControllers {
    let mut controllers = InterruptControllers::default();
    let mut at = FIRST_ENTRY;
    while at + 2 <= table.bytes() {
        let (kind, bytes) = (table.u8(at), table.u8(at + 1));
        if bytes < 2 {
            break;
        }
        match (kind, bytes) {
            (IO_APIC, IO_APIC_BYTES..) => controllers.add_io_apic(IoApicDescription {
                address: table.u32(at + 4).into(),
                first_interrupt: table.u32(at + 8),
            }),
            (OVERRIDE, OVERRIDE_BYTES..) => controllers.override_line(table.u8(at + 3), table.u32(at + 4)),
            _ => {}
        }
        at += u64::from(bytes);
    }
    controllers
}
