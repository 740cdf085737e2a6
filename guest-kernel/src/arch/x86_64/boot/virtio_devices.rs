//! The virtio devices that the loader tells of: where their registers are, and how they interrupt.
//!
//! Our own monitor describes them in the device tree. Others append a word for each to the command
//! line, in the form that Linux made up for its `virtio_mmio` driver:
//! `virtio_mmio.device=SIZE@ADDRESS:IRQ`.

use aerostat_abi::units::HUGE_BYTES;

use super::machine::MachineError;
use crate::config::{FIRST_DEVICE_VECTOR, MAX_VIRTIO_DEVICES};
use crate::layout;

const COMMAND_LINE_KEY: &str = "virtio_mmio.device=";
/// Registers, and the shortest configuration space that any device has (virtio 1.2, 4.2.2).
const MIN_REGISTER_BYTES: u64 = 0x108;
/// Pins of an I/O APIC.
const PINS: u8 = 24;

/// A virtio device with registers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VirtioDevice {
    /// Address of the registers: in the device hole, within one slot of 2 MiB.
    pub(crate) registers: u64,
    /// Bytes of the registers, the device's configuration space included.
    pub(crate) bytes: u64,
    /// How it interrupts.
    pub(crate) interrupt: Interrupt,
}

/// How a device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// By a message to the first CPU that raises this vector, one of the ring-0 stub's device
    /// vectors.
    Message(u8),
    /// Through this pin of the I/O APIC, once that is told to let it.
    Pin(u8),
}

/// A machine's virtio devices, validated.
#[derive(Debug, Default)]
pub(crate) struct VirtioDevices {
    devices: [Option<VirtioDevice>; MAX_VIRTIO_DEVICES],
}

impl VirtioDevices {
    /// The devices that the words of a command line name.
    ///
    /// # Errors
    /// [`MachineError::BadVirtioDevice`] for a word that makes no sense.
    pub(super) fn from_command_line(text: &str) -> Result<Self, MachineError> {
        let mut devices = Self::default();
        for word in text.split_whitespace().filter_map(|word| word.strip_prefix(COMMAND_LINE_KEY)) {
            let (address, bytes, pin) = parse(word).ok_or(MachineError::BadVirtioDevice)?;
            devices.add(address, bytes, Interrupt::Pin(pin))?;
        }
        Ok(devices)
    }

    /// Adds the device whose `bytes` bytes of registers are at `address`.
    ///
    /// # Errors
    /// [`MachineError::BadVirtioDevice`] when there can be no such device, or no more devices.
    pub(super) fn add(&mut self, address: u64, bytes: u64, interrupt: Interrupt) -> Result<(), MachineError> {
        let end = address.checked_add(bytes).ok_or(MachineError::BadVirtioDevice)?;
        let is_in_hole = address >= layout::DEVICE_HOLE.start && end <= layout::IO_APIC;
        let is_in_one_slot = address / HUGE_BYTES == end.saturating_sub(1) / HUGE_BYTES;
        let can_interrupt = match interrupt {
            Interrupt::Message(vector) => {
                vector.checked_sub(FIRST_DEVICE_VECTOR).is_some_and(|index| usize::from(index) < MAX_VIRTIO_DEVICES)
            }
            Interrupt::Pin(pin) => pin < PINS,
        };
        let is_whole = bytes >= MIN_REGISTER_BYTES && address.is_multiple_of(8);
        if !(is_in_hole && is_in_one_slot && is_whole && can_interrupt) {
            return Err(MachineError::BadVirtioDevice);
        }
        let free = self.devices.iter_mut().find(|device| device.is_none()).ok_or(MachineError::BadVirtioDevice)?;
        *free = Some(VirtioDevice { registers: address, bytes, interrupt });
        Ok(())
    }

    /// The devices, in the order in which the loader names them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &VirtioDevice> {
        self.devices.iter().flatten()
    }
}

/// Address, size and interrupt of `SIZE@ADDRESS:IRQ`; a number may follow that Linux gives the
/// device.
fn parse(word: &str) -> Option<(u64, u64, u8)> {
    let (bytes, rest) = word.split_once('@')?;
    let mut rest = rest.split(':');
    let (address, pin) = (rest.next()?, rest.next()?);
    Some((number(address)?, number(bytes)?, pin.parse().ok()?))
}

/// A number as C writes it, perhaps in kibibytes.
fn number(text: &str) -> Option<u64> {
    let (digits, unit) = text.strip_suffix(['K', 'k']).map_or((text, 1), |digits| (digits, 1 << 10));
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    number.ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::{Interrupt, VirtioDevice, VirtioDevices};
    use crate::arch::x86_64::boot::machine::MachineError;

    #[test]
    fn words_of_the_command_line_name_devices() {
        let words = "a=b virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=4K@0xc0001000:5:1";
        let devices: Vec<_> = VirtioDevices::from_command_line(words).unwrap().iter().copied().collect();
        let device = |registers, bytes, pin| VirtioDevice { registers, bytes, interrupt: Interrupt::Pin(pin) };
        assert_eq!(devices, [device(0xfeb0_0e00, 512, 12), device(0xc000_1000, 4096, 5)]);
        assert_eq!(VirtioDevices::from_command_line("a=b").unwrap().iter().count(), 0);
    }

    #[test]
    fn devices_that_cannot_be_are_refused() {
        for word in ["", "512", "512@0xfeb00e00", "x@0xfeb00e00:5", "512@0xfeb00e00:24", "18446744073709551615K@0:0"] {
            let refused = VirtioDevices::from_command_line(&format!("virtio_mmio.device={word}"));
            assert_eq!(refused.unwrap_err(), MachineError::BadVirtioDevice, "{word}");
        }
        let refused =
            |address, bytes, vector| VirtioDevices::default().add(address, bytes, Interrupt::Message(vector)).is_err();
        assert!(!refused(0xd000_0000, 0x1000, 0x50) && !refused(0xd000_f000, 0x1000, 0x5f));
        assert!(refused(0x1000, 0x1000, 0x50), "memory");
        assert!(refused(0xfec0_0000, 0x1000, 0x50), "the interrupt controllers");
        assert!(refused(0xd000_0000, 0x100, 0x50), "no configuration space");
        assert!(refused(0xd01f_f000, 0x2000, 0x50), "two slots");
        assert!(refused(u64::MAX - 7, 0x1000, 0x50), "no address");
        assert!(refused(0xd000_0000, 0x1000, 0x4f) && refused(0xd000_0000, 0x1000, 0x60), "other vectors");
    }

    #[test]
    fn one_device_too_many_is_refused() {
        let mut devices = VirtioDevices::default();
        let results: Vec<_> =
            (0..17).map(|n| devices.add(0xd000_0000 + n * 0x1000, 0x1000, Interrupt::Message(0x50))).collect();
        assert!(results[..16].iter().all(Result::is_ok) && results[16].is_err());
    }
}
