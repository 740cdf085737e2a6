//! A virtio device whose description has been validated.

use aerostat_abi::units::HUGE_BYTES;

use crate::arch::x86_64::boot::devices::{BadVirtioDevice, Interrupt, VirtioDescription};
use crate::arch::x86_64::interrupt::InterruptLine;
use crate::layout;

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
    /// How it interrupts: a message has the line's vector.
    pub(crate) interrupt: Interrupt,
    /// The line on which its interrupts arrive.
    pub(crate) line: InterruptLine,
}

impl VirtioDevice {
    /// Validates the description of the device that is number `index` of the machine's. A device
    /// that interrupts through a pin gets the line of its number.
    ///
    /// # Errors
    /// [`BadVirtioDevice`] when there can be no such device.
    pub(crate) fn new(index: u8, description: &VirtioDescription) -> Result<Self, BadVirtioDevice> {
        let VirtioDescription { registers, bytes, interrupt } = *description;
        let end = registers.checked_add(bytes).ok_or(BadVirtioDevice)?;
        let is_in_hole = registers >= layout::DEVICE_HOLE.start && end <= layout::IO_APIC;
        let is_in_one_slot = registers / HUGE_BYTES == end.saturating_sub(1) / HUGE_BYTES;
        let is_whole = bytes >= MIN_REGISTER_BYTES && registers.is_multiple_of(8);
        let line = match interrupt {
            Interrupt::Message(vector) => InterruptLine::of_device_vector(vector),
            Interrupt::Pin(pin) => InterruptLine::device(index).filter(|_| pin < PINS),
        };
        let line = line.filter(|_| is_in_hole && is_in_one_slot && is_whole).ok_or(BadVirtioDevice)?;
        Ok(Self { registers, bytes, interrupt, line })
    }
}

#[cfg(test)]
mod tests {
    use super::{BadVirtioDevice, Interrupt, InterruptLine, VirtioDescription, VirtioDevice};

    fn device(registers: u64, bytes: u64, interrupt: Interrupt) -> Result<VirtioDevice, BadVirtioDevice> {
        VirtioDevice::new(3, &VirtioDescription { registers, bytes, interrupt })
    }

    #[test]
    fn devices_that_cannot_be_are_refused() {
        let refused = |address, bytes, vector| device(address, bytes, Interrupt::Message(vector)).is_err();
        assert!(!refused(0xd000_0000, 0x1000, 0x50) && !refused(0xd000_f000, 0x1000, 0x5f));
        assert!(refused(0x1000, 0x1000, 0x50), "memory");
        assert!(refused(0xfec0_0000, 0x1000, 0x50), "the interrupt controllers");
        assert!(refused(0xd000_0000, 0x100, 0x50), "no configuration space");
        assert!(refused(0xd01f_f000, 0x2000, 0x50), "two slots");
        assert!(refused(u64::MAX - 7, 0x1000, 0x50), "no address");
        assert!(refused(0xd000_0000, 0x1000, 0x4f) && refused(0xd000_0000, 0x1000, 0x60), "other vectors");
        assert!(device(0xfeb0_0e00, 512, Interrupt::Pin(23)).is_ok());
        assert!(device(0xfeb0_0e00, 512, Interrupt::Pin(24)).is_err(), "no such pin");
    }

    #[test]
    fn a_message_has_the_line_of_its_vector_and_a_pin_that_of_the_devices_number() {
        let line = |interrupt| device(0xd000_0000, 0x1000, interrupt).map(|device| device.line).ok();
        assert_eq!(line(Interrupt::Message(0x51)), InterruptLine::device(1));
        assert_eq!(line(Interrupt::Pin(12)), InterruptLine::device(3));
    }
}
