//! Registers of virtio devices in memory (virtio 1.2, 4.2). The protocol itself is the crate
//! `virtio-drivers`.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use core::ptr::NonNull;

use aerostat_abi::units::to_usize;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};

use crate::arch::x86_64::boot::VirtioDevice;
use crate::mm::SPACE;

/// The transport to a device.
///
/// # Errors
/// When there is none, or none that one can talk to.
pub(super) fn open(device: &VirtioDevice) -> Result<MmioTransport<'static>, MmioError> {
    map(device.registers);
    let registers = core::ptr::with_exposed_provenance_mut(to_usize(device.registers));
    let registers = NonNull::new(registers).ok_or(MmioError::MmioRegionTooSmall)?;
    // SAFETY: the boot information says that the device's registers are there; they are mapped,
    // validated to be aligned and large enough, and no other driver opens them.
    unsafe { MmioTransport::new(registers, to_usize(device.bytes)) }
}

/// Makes the registers at `address`, in the device hole, accessible.
pub(super) fn map(address: u64) {
    if let Some(tables) = SPACE.lock().tables_mut() {
        tables.map_registers(address);
    }
}
