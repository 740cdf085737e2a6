//! Registers of virtio devices in memory (virtio 1.2, 4.2). The protocol itself is the crate
//! `virtio-drivers`.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use core::ptr::NonNull;

use aerostat_abi::units::to_usize;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};

use super::device::VirtioDevice;
use crate::mm::SPACE;

/// Opens the transport to a device.
///
/// # Safety
/// There is no other transport to the device.
///
/// # Errors
/// When no device is there, or none that speaks a known version of the protocol.
pub(crate) unsafe fn open(device: &VirtioDevice) -> Result<MmioTransport<'static>, MmioError> {
    map(device.registers);
    let registers = core::ptr::with_exposed_provenance_mut(to_usize(device.registers));
    let registers = NonNull::new(registers).ok_or(MmioError::MmioRegionTooSmall)?;
    // SAFETY: the boot information says that the device's registers are there; they are mapped and
    // validated to be aligned and large enough, and the caller vouches that nothing else has them.
    unsafe { MmioTransport::new(registers, to_usize(device.bytes)) }
}

/// Maps the registers at `address`, in the device hole.
pub(crate) fn map(address: u64) {
    if let Some(tables) = SPACE.lock().tables_mut() {
        tables.map_registers(address);
    }
}
