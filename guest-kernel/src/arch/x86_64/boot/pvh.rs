//! Boot information of the PVH protocol, as QEMU, Firecracker and Cloud Hypervisor leave it.
//!
//! Layout: Xen's `public/arch-x86/hvm/start_info.h`. The parser reads through [`PhysicalMemory`],
//! so it runs on the host too. What the start information does not say, the ACPI tables may.

use aerostat_abi::boot::MAX_COMMAND_LINE;

use super::acpi;
use super::devices::{PciSearch, VirtioDescriptions};
use super::machine::{Machine, MachineError};
use super::physical_memory::PhysicalMemory;
use crate::arch::x86_64::power::PowerRegisters;

const MAGIC: u32 = 0x336e_c578;
const USABLE_MEMORY: u32 = 1;
const ENTRY_BYTES: u64 = 24;
/// The most entries that are read: no loader makes more, and a wrong count must not send the parser
/// through all memory.
const MAX_ENTRIES: u32 = 128;
/// Words of the command line that keep the kernel from the PCI bus and from the ACPI tables.
const PCI_OFF: &str = "pci=off";
const ACPI_OFF: &str = "acpi=off";

/// Reads the start information at `address`.
pub(super) fn read(address: u64, memory: &impl PhysicalMemory) -> Result<Machine, MachineError> {
    let version = memory.u32(address.wrapping_add(4));
    if address == 0 || memory.u32(address) != MAGIC || version == 0 {
        return Err(MachineError::BadBootInformation);
    }
    let command_line = memory.u64(address.wrapping_add(24));
    let map = memory.u64(address.wrapping_add(40));
    let entries = memory.u32(address.wrapping_add(48));
    if map == 0 || entries > MAX_ENTRIES {
        return Err(MachineError::BadMemoryMap);
    }
    let entries = (0..u64::from(entries)).map(|index| map.wrapping_add(index * ENTRY_BYTES));
    let ranges = entries.filter(|entry| memory.u32(entry.wrapping_add(16)) == USABLE_MEMORY).map(|entry| {
        let start = memory.u64(entry);
        start..start.saturating_add(memory.u64(entry.wrapping_add(8)))
    });
    let mut text = [0; MAX_COMMAND_LINE + 1];
    let length = if command_line == 0 { 0 } else { copy_string(command_line, memory, &mut text)? };
    let mut machine = Machine::new(ranges, &text[..length])?;
    let has_word = |word| machine.command_line.loader_words().any(|other| other == word);
    let (is_pci_off, is_acpi_off) = (has_word(PCI_OFF), has_word(ACPI_OFF));
    machine.devices.mmio = VirtioDescriptions::from_command_line(machine.command_line.loader_words())?;
    let tables = if is_acpi_off { None } else { acpi::read(memory, table_pointer(address, memory)) };
    machine.devices.pci = if is_pci_off {
        PciSearch::Without(PCI_OFF)
    } else {
        PciSearch::With(tables.as_ref().and_then(|tables| tables.ecam))
    };
    if let Some(tables) = tables {
        machine.power = tables.power;
        machine.devices.controllers = tables.controllers;
        if machine.devices.mmio.iter().next().is_none() {
            machine.devices.mmio = tables.virtio_devices;
        }
    }
    Ok(machine)
}

/// Reads how a machine is powered off of which all else may be unusable.
pub(super) fn read_power(address: u64, memory: &impl PhysicalMemory) -> PowerRegisters {
    acpi::read(memory, table_pointer(address, memory)).map(|tables| tables.power).unwrap_or_default()
}

/// Returns where the loader says that the root pointer of the ACPI tables is; zero if it does not.
fn table_pointer(address: u64, memory: &impl PhysicalMemory) -> u64 {
    memory.u64(address.wrapping_add(32))
}

/// Copies a zero-terminated string, and returns its length.
fn copy_string(address: u64, memory: &impl PhysicalMemory, text: &mut [u8]) -> Result<usize, MachineError> {
    for (index, byte) in text.iter_mut().enumerate() {
        *byte = memory.byte(address.wrapping_add(index as u64));
        if *byte == 0 {
            return Ok(index);
        }
    }
    Err(MachineError::BadCommandLine)
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, read};
    use crate::arch::x86_64::boot::machine::MachineError;

    /// Start information at 0x100, memory map at 0x200, command line at 0x300.
    fn memory(map: &[(u64, u64, u32)], command_line: &[u8]) -> Vec<u8> {
        let mut memory = vec![0; 0x400];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x100, &MAGIC.to_le_bytes());
        put(0x104, &1_u32.to_le_bytes());
        put(0x118, &0x300_u64.to_le_bytes());
        put(0x128, &0x200_u64.to_le_bytes());
        put(0x130, &u32::try_from(map.len()).unwrap().to_le_bytes());
        for (index, (start, size, kind)) in map.iter().enumerate() {
            put(0x200 + index * 24, &start.to_le_bytes());
            put(0x208 + index * 24, &size.to_le_bytes());
            put(0x210 + index * 24, &kind.to_le_bytes());
        }
        put(0x300, command_line);
        memory
    }

    #[test]
    fn usable_ranges_and_the_command_line_are_found() {
        let memory = memory(&[(0, 0x9f000, 1), (0x9f000, 0x1000, 2), (0x10_0000, 64 << 20, 1)], b"phases=1\0junk");
        let machine = read(0x100, &memory).unwrap();
        assert_eq!(&*machine.memory, &[0..0x9f000, 0x10_0000..(64 << 20) + 0x10_0000]);
        assert_eq!(machine.command_line.as_str(), "phases=1");
    }

    #[test]
    fn nonsense_is_refused() {
        let mut wrong = memory(&[(0, 64 << 20, 1)], b"\0");
        wrong[0x100] ^= 1;
        assert_eq!(read(0x100, &wrong).unwrap_err(), MachineError::BadBootInformation);
        let mut many = memory(&[(0, 64 << 20, 1)], b"\0");
        many[0x130..0x134].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(0x100, &many).unwrap_err(), MachineError::BadMemoryMap);
        assert_eq!(read(0, &many).unwrap_err(), MachineError::BadBootInformation);
    }
}
