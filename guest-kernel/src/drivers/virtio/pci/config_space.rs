//! Access to the configuration space: by ports (PCI Local Bus 3.0, 3.2.2.3.2), or in memory (PCI
//! Express Base, 7.2.2), where a machine has it.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use aerostat_abi::units::to_usize;
use virtio_drivers::transport::pci::bus::{Cam, ConfigurationAccess, DeviceFunction};

use crate::arch::x86_64::boot::devices::Ecam;
use crate::arch::x86_64::port_io::{in_dword, out_dword};
use crate::layout::{DEVICE_HOLE, IO_APIC};
use crate::mm;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// Bytes of the configuration space of a bus in memory.
const BUS_BYTES: u64 = 1 << 20;
/// The first function of the first bus, which a bus has.
const HOST_BRIDGE: DeviceFunction = DeviceFunction { bus: 0, device: 0, function: 0 };

/// A way to the configuration space. It is used while the kernel starts, by one thread.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum ConfigSpace {
    /// Two ports, one for the address.
    Ports,
    /// Memory, in the device hole.
    Memory(Ecam),
}

impl ConfigSpace {
    /// Returns the way that this machine has.
    pub(in super::super) fn find(memory: Option<Ecam>) -> Option<Self> {
        let memory = memory.filter(Self::is_in_device_hole).map(Self::Memory);
        [Some(Self::Ports), memory].into_iter().flatten().find(Self::is_there)
    }

    /// Returns how the way is called.
    pub(in super::super) fn name(&self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Memory(_) => "ECAM",
        }
    }

    fn is_in_device_hole(ecam: &Ecam) -> bool {
        let end = ecam.address.saturating_add((u64::from(ecam.last_bus) + 1) * BUS_BYTES);
        ecam.address >= DEVICE_HOLE.start && end <= IO_APIC
    }

    fn is_there(&self) -> bool {
        if matches!(self, Self::Ports) {
            // The address can be read back, while a port without a device reads as ones.
            out_dword(ADDRESS, ENABLE);
            if in_dword(ADDRESS) != ENABLE {
                return false;
            }
        }
        !matches!(self.read_word(HOST_BRIDGE, 0), 0 | u32::MAX)
    }

    /// Returns where a register is in memory; `None` for a bus that is not there.
    fn register(ecam: &Ecam, function: DeviceFunction, offset: u8) -> Option<*mut u32> {
        if function.bus > ecam.last_bus {
            return None;
        }
        let address = ecam.address + u64::from(Cam::Ecam.cam_offset(function, offset & !3));
        mm::map_registers(address);
        Some(core::ptr::with_exposed_provenance_mut(to_usize(address)))
    }
}

impl ConfigurationAccess for ConfigSpace {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        match self {
            Self::Ports => {
                out_dword(ADDRESS, port_address(function, offset));
                in_dword(DATA)
            }
            Self::Memory(ecam) => {
                let Some(register) = Self::register(ecam, function, offset) else { return u32::MAX };
                // SAFETY: the register is mapped, in an area that has configuration spaces and no
                // memory.
                unsafe { register.read_volatile() }
            }
        }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        match self {
            Self::Ports => {
                out_dword(ADDRESS, port_address(function, offset));
                out_dword(DATA, data);
            }
            Self::Memory(ecam) => {
                if let Some(register) = Self::register(ecam, function, offset) {
                    // SAFETY: as in `read_word`.
                    unsafe { register.write_volatile(data) };
                }
            }
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

fn port_address(DeviceFunction { bus, device, function }: DeviceFunction, offset: u8) -> u32 {
    let [bus, device, function] = [bus, device, function].map(u32::from);
    ENABLE | bus << 16 | device << 11 | function << 8 | u32::from(offset & !3)
}
