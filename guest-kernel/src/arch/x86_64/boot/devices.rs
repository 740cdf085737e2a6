//! Where the machine's devices are, as loaders describe it.
//!
//! Virtio devices with registers in memory are named one by one.
//! Our own monitor describes them in the device tree. Others append a word for each to the command
//! line, in the form that Linux made up for its `virtio_mmio` driver:
//! `virtio_mmio.device=SIZE@ADDRESS:IRQ`. Whether a device can be as it is described, its driver
//! decides. Devices on a PCI bus are found by a search.

use core::fmt;
use core::ops::Range;

use super::interrupt_controllers::InterruptControllers;

/// The most descriptions of virtio devices. There may be more of them than devices, as some
/// machines describe places where a device could be.
const MAX_DESCRIPTIONS: usize = 32;

const COMMAND_LINE_KEY: &str = "virtio_mmio.device=";

/// What a loader says about a virtio device with registers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VirtioDescription {
    /// Address of the registers.
    pub(crate) registers: u64,
    /// Bytes of the registers, the device's configuration space included.
    pub(crate) bytes: u64,
    /// How the device interrupts.
    pub(crate) interrupt: Interrupt,
}

/// How a device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// By a message to the first CPU that raises this vector.
    Message(u8),
    /// Through this pin of the I/O APIC, once the pin is routed.
    Pin(u8),
}

/// The error of a virtio device whose description is incomplete, and of one description too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadVirtioDevice;

impl fmt::Display for BadVirtioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the description of a virtio device is incomplete, or there are more than 32")
    }
}

/// Where the machine's devices are.
#[derive(Debug)]
pub(crate) struct DeviceSources {
    /// Those with registers in memory.
    pub(crate) mmio: VirtioDescriptions,
    /// The interrupt controllers that their pins are connected to.
    pub(crate) controllers: InterruptControllers,
    /// Whether there may be others on a PCI bus.
    pub(crate) pci: PciSearch,
    /// Memory of the machine in the device hole, which is not used, and has no registers.
    pub(crate) memory_in_device_hole: Range<u64>,
}

/// Whether a PCI bus is searched for devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PciSearch {
    /// No, for this reason.
    Without(&'static str),
    /// Yes; its configuration space may also be in memory.
    With(Option<Ecam>),
}

/// A configuration space of a PCI bus in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecam {
    /// The address of the first bus's.
    pub(crate) address: u64,
    pub(crate) last_bus: u8,
}

impl Ecam {
    /// Returns all of its addresses.
    pub(crate) fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add((u64::from(self.last_bus) + 1) << 20)
    }
}

/// The descriptions of a machine's virtio devices with registers in memory, in the loader's order.
#[derive(Debug)]
pub(crate) struct VirtioDescriptions {
    descriptions: [Option<VirtioDescription>; MAX_DESCRIPTIONS],
    origin: &'static str,
}

impl VirtioDescriptions {
    /// Returns an empty list of descriptions that come from `origin`.
    pub(super) fn new(origin: &'static str) -> Self {
        Self { descriptions: [None; MAX_DESCRIPTIONS], origin }
    }

    /// Returns where the descriptions come from.
    pub(crate) fn origin(&self) -> &'static str {
        self.origin
    }

    /// Reads the descriptions in the words of a command line.
    ///
    /// # Errors
    /// [`BadVirtioDevice`] for a word that does not have the form, and when there are too many.
    pub(super) fn from_command_line<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, BadVirtioDevice> {
        let mut descriptions = Self::new("command line");
        for word in words.filter_map(|word| word.strip_prefix(COMMAND_LINE_KEY)) {
            descriptions.add(parse(word).ok_or(BadVirtioDevice)?)?;
        }
        Ok(descriptions)
    }

    /// Adds a description.
    ///
    /// # Errors
    /// [`BadVirtioDevice`] when there are too many.
    pub(crate) fn add(&mut self, description: VirtioDescription) -> Result<(), BadVirtioDevice> {
        let free = self.descriptions.iter_mut().find(|place| place.is_none()).ok_or(BadVirtioDevice)?;
        *free = Some(description);
        Ok(())
    }

    /// Returns the descriptions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &VirtioDescription> {
        self.descriptions.iter().flatten()
    }
}

/// Parses `SIZE@ADDRESS:IRQ`, which may be followed by the number that Linux gives the device.
fn parse(word: &str) -> Option<VirtioDescription> {
    let (bytes, rest) = word.split_once('@')?;
    let mut rest = rest.split(':');
    let (address, pin) = (rest.next()?, rest.next()?);
    let interrupt = Interrupt::Pin(pin.parse().ok()?);
    Some(VirtioDescription { registers: number(address)?, bytes: number(bytes)?, interrupt })
}

/// Parses a number as C writes it; `K` stands for kibibytes.
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
    use super::{BadVirtioDevice, Interrupt, VirtioDescription, VirtioDescriptions};

    #[test]
    fn words_of_the_command_line_describe_devices() {
        let words = "a=b virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=4K@0xc0001000:5:1";
        let devices: Vec<_> =
            VirtioDescriptions::from_command_line(words.split_whitespace()).unwrap().iter().copied().collect();
        let device = |registers, bytes, pin| VirtioDescription { registers, bytes, interrupt: Interrupt::Pin(pin) };
        assert_eq!(devices, [device(0xfeb0_0e00, 512, 12), device(0xc000_1000, 4096, 5)]);
        assert_eq!(VirtioDescriptions::from_command_line(["a=b"].into_iter()).unwrap().iter().count(), 0);
    }

    #[test]
    fn words_without_the_form_are_refused() {
        for word in ["", "512", "512@0xfeb00e00", "x@0xfeb00e00:5", "512@0xfeb00e00:300", "18446744073709551615K@0:0"] {
            let word = format!("virtio_mmio.device={word}");
            let refused = VirtioDescriptions::from_command_line([&*word].into_iter());
            assert_eq!(refused.unwrap_err(), BadVirtioDevice, "{word}");
        }
    }

    #[test]
    fn one_device_too_many_is_refused() {
        let mut devices = VirtioDescriptions::new("test");
        let description = VirtioDescription { registers: 0, bytes: 0, interrupt: Interrupt::Message(0x50) };
        let results: Vec<_> = (0..33).map(|_| devices.add(description)).collect();
        assert!(results[..32].iter().all(Result::is_ok) && results[32].is_err());
    }
}
