//! ACPI tables: how the machine is powered off, its interrupt controllers, and where its devices
//! are. Pure, but for the memory that is read.
//!
//! The tables are untrusted: each has a bounded length and bytes that add up, offsets outside of it
//! read as zero, and no count or address leads a parser astray. There is no interpreter for the
//! language that some of it is written in; [`aml`] says what is read of that
//! (decision 0106).

mod aml;
mod fadt;
mod madt;
mod tables;
#[cfg(test)]
mod tests;

use self::tables::{RootTable, Table};
use super::devices::{Ecam, VirtioDescriptions};
use super::interrupt_controllers::InterruptControllers;
use super::physical_memory::PhysicalMemory;
use crate::arch::x86_64::power::PowerRegisters;

/// Where the table of configuration spaces has its first entry, and that entry's fields.
const MCFG_ENTRY: u64 = 44;
const MCFG_SEGMENT: u64 = MCFG_ENTRY + 8;
const MCFG_LAST_BUS: u64 = MCFG_ENTRY + 11;

/// What the tables say. All of it may be missing.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) power: PowerRegisters,
    pub(super) controllers: InterruptControllers,
    pub(super) ecam: Option<Ecam>,
    pub(super) virtio_devices: VirtioDescriptions,
}

/// Reads the tables. `pointer` is where the root pointer is, or zero if the loader does not say.
/// Returns `None` for a machine without tables.
pub(super) fn read(memory: &impl PhysicalMemory, pointer: u64) -> Option<Facts> {
    let root = RootTable::find(memory, pointer)?;
    let fixed = root.table(*b"FACP");
    let devices = fixed.and_then(|fixed| Table::at(root.memory(), fadt::dsdt_address(&fixed), *b"DSDT"));
    let sleep_type = devices.and_then(|devices| aml::sleep_type(&devices));
    let mut virtio_devices = VirtioDescriptions::new("ACPI");
    if let Some(devices) = devices {
        // More of them than have a place are no machine that is known.
        aml::virtio_devices(&devices, &mut |device| _ = virtio_devices.add(device));
    }
    let ecam = root.table(*b"MCFG").and_then(|table| mcfg(&table));
    Some(Facts {
        power: fixed.map(|fixed| fadt::power(&fixed, sleep_type)).unwrap_or_default(),
        controllers: root.table(*b"APIC").map(|table| madt::read(&table)).unwrap_or_default(),
        ecam: ecam.or_else(|| aml::ecam(&devices?)),
        virtio_devices,
    })
}

/// Reads the first entry of the table of configuration spaces (PCI Firmware 3.3, 4.1.2), if it is
/// for the buses that can also be reached by ports.
fn mcfg(table: &Table<'_, impl PhysicalMemory>) -> Option<Ecam> {
    let is_first_segment = table.bytes() > MCFG_LAST_BUS && table.u16(MCFG_SEGMENT) == 0;
    is_first_segment.then(|| Ecam { address: table.u64(MCFG_ENTRY), last_bus: table.u8(MCFG_LAST_BUS) })
}
