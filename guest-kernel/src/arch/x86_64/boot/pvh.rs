//! Boot information of the PVH protocol, as QEMU, Firecracker and Cloud Hypervisor leave it.
//!
//! Layout: Xen's `public/arch-x86/hvm/start_info.h`. The parser reads through [`PhysicalMemory`],
//! so it runs on the host too.

use core::ops::Range;

use aerostat_abi::boot::MAX_COMMAND_LINE;

use super::devices::{PciSearch, VirtioDescriptions};
use super::machine::{Machine, MachineError};
use super::memory_map::MAX_RANGES;

const MAGIC: u32 = 0x336e_c578;
const USABLE_MEMORY: u32 = 1;
const ENTRY_BYTES: u64 = 24;
/// The most entries that are read: no loader makes more, and a wrong count must not send the parser
/// through all memory.
const MAX_ENTRIES: u32 = 128;

/// Reads guest-physical memory.
pub(super) trait PhysicalMemory {
    /// Returns the byte at `address`.
    fn byte(&self, address: u64) -> u8;

    fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|offset| self.byte(address.wrapping_add(offset))))
    }

    fn u64(&self, address: u64) -> u64 {
        u64::from(self.u32(address)) | u64::from(self.u32(address.wrapping_add(4))) << 32
    }
}

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
    let mut ranges = [const { 0..0 }; MAX_RANGES];
    let mut count = 0;
    for entry in (0..u64::from(entries)).map(|index| map.wrapping_add(index * ENTRY_BYTES)) {
        let start = memory.u64(entry);
        let range: Range<u64> = start..start.saturating_add(memory.u64(entry.wrapping_add(8)));
        if memory.u32(entry.wrapping_add(16)) == USABLE_MEMORY {
            *ranges.get_mut(count).ok_or(MachineError::BadMemoryMap)? = range;
            count += 1;
        }
    }
    let mut text = [0; MAX_COMMAND_LINE + 1];
    let length = if command_line == 0 { 0 } else { copy_string(command_line, memory, &mut text)? };
    let mut machine = Machine::new(ranges.into_iter().take(count), &text[..length])?;
    machine.devices.mmio = VirtioDescriptions::from_command_line(machine.command_line.as_str())?;
    let is_pci_off = machine.command_line.as_str().split_whitespace().any(|word| word == "pci=off");
    machine.devices.pci = if is_pci_off { PciSearch::Without("pci=off") } else { PciSearch::With(None) };
    Ok(machine)
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

/// Memory below the end of the boot identity map; any other reads as zero.
#[cfg(target_os = "none")]
pub(super) struct IdentityMapped;

#[cfg(target_os = "none")]
#[allow(unsafe_code, reason = "reads what the loader left in memory")]
impl PhysicalMemory for IdentityMapped {
    fn byte(&self, address: u64) -> u8 {
        if address == 0 || address >= crate::layout::BOOT_IDENTITY_END {
            return 0;
        }
        let pointer = core::ptr::with_exposed_provenance::<u8>(aerostat_abi::units::to_usize(address));
        // SAFETY: the boot page tables map the address, and any byte there may be read.
        unsafe { pointer.read_volatile() }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, PhysicalMemory, read};
    use crate::arch::x86_64::boot::machine::MachineError;

    impl PhysicalMemory for Vec<u8> {
        fn byte(&self, address: u64) -> u8 {
            self.get(usize::try_from(address).unwrap()).copied().unwrap_or(0)
        }
    }

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
