//! Registers in memory, and virtio devices that have all of theirs there (virtio 1.2, 4.2).
#![cfg_attr(target_os = "none", allow(unsafe_code, reason = "memory-mapped registers"))]

use core::fmt;

use aerostat_abi::units::HUGE_BYTES;
use virtio_drivers::transport::mmio::MmioError;

use crate::arch::x86_64::boot::devices::VirtioDescription;
use crate::layout;

/// Registers, and the shortest configuration space that any device has (virtio 1.2, 4.2.2).
const MIN_REGISTER_BYTES: u64 = 0x108;

/// Why a device over MMIO can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Its registers can't be where they are said to be.
    BadRegisters,
    /// Its registers are those of no device, or of one of another kind.
    Protocol(MmioError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRegisters => f.write_str("there can be no registers at such an address"),
            Self::Protocol(error) => error.fmt(f),
        }
    }
}

/// Returns whether registers can be there: in the device hole, within one slot of 2 MiB.
fn is_possible(VirtioDescription { registers, bytes, .. }: &VirtioDescription) -> bool {
    let Some(end) = registers.checked_add(*bytes) else { return false };
    let is_in_hole = *registers >= layout::DEVICE_HOLE.start && end <= layout::IO_APIC;
    let is_in_one_slot = registers / HUGE_BYTES == end.saturating_sub(1) / HUGE_BYTES;
    is_in_hole && is_in_one_slot && *bytes >= MIN_REGISTER_BYTES && registers.is_multiple_of(8)
}

#[cfg(target_os = "none")]
pub(super) use self::machine::{open, read, write};

#[cfg(target_os = "none")]
mod machine {
    use core::ptr::NonNull;

    use aerostat_abi::units::to_usize;
    use virtio_drivers::transport::mmio::{MmioError, MmioTransport};

    use super::{OpenError, VirtioDescription, is_possible};
    use crate::mm;

    /// Opens the transport to a device. Returns `None` where there is a place for a device, and
    /// none in it.
    ///
    /// # Safety
    /// There is no other transport to the device.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(in super::super) unsafe fn open(
        description: &VirtioDescription,
    ) -> Result<Option<MmioTransport<'static>>, OpenError> {
        if !is_possible(description) {
            return Err(OpenError::BadRegisters);
        }
        mm::map_registers(description.registers);
        let registers = core::ptr::with_exposed_provenance_mut(to_usize(description.registers));
        let registers = NonNull::new(registers).ok_or(OpenError::BadRegisters)?;
        // SAFETY: the boot information says that the device's registers are there; they are mapped
        // and validated to be aligned and large enough, and the caller vouches that nothing else
        // has them.
        match unsafe { MmioTransport::new(registers, to_usize(description.bytes)) } {
            Ok(transport) => Ok(Some(transport)),
            Err(MmioError::InvalidDeviceID(error)) if error == NO_DEVICE => Ok(None),
            Err(error) => Err(OpenError::Protocol(error)),
        }
    }

    /// What a place says that has no device.
    const NO_DEVICE: virtio_drivers::transport::DeviceTypeError =
        virtio_drivers::transport::DeviceTypeError::InvalidDeviceType(0);

    /// Reads a register.
    ///
    /// # Safety
    /// There is such a register at the address; it is mapped, and reading it is allowed.
    pub(in super::super) unsafe fn read<T: Copy>(address: u64) -> T {
        // SAFETY: the caller's duty.
        unsafe { core::ptr::with_exposed_provenance::<T>(to_usize(address)).read_volatile() }
    }

    /// Writes a register.
    ///
    /// # Safety
    /// There is such a register at the address; it is mapped, and writing this value is allowed.
    pub(in super::super) unsafe fn write<T: Copy>(address: u64, value: T) {
        // SAFETY: the caller's duty.
        unsafe { core::ptr::with_exposed_provenance_mut::<T>(to_usize(address)).write_volatile(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::{VirtioDescription, is_possible};
    use crate::arch::x86_64::boot::devices::Interrupt;

    #[test]
    fn registers_that_cannot_be_are_refused() {
        let refused =
            |registers, bytes| !is_possible(&VirtioDescription { registers, bytes, interrupt: Interrupt::Pin(5) });
        assert!(!refused(0xd000_0000, 0x1000) && !refused(0xfeb0_0e00, 512));
        assert!(refused(0x1000, 0x1000), "memory");
        assert!(refused(0xfec0_0000, 0x1000), "the interrupt controllers");
        assert!(refused(0xd000_0000, 0x100), "no configuration space");
        assert!(refused(0xd01f_f000, 0x2000), "two slots");
        assert!(refused(0xd000_0001, 0x1000), "not aligned");
        assert!(refused(u64::MAX - 7, 0x1000), "no address");
    }
}
