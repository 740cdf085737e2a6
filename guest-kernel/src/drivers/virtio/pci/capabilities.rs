//! Where a virtio device on a PCI bus has its registers (virtio 1.2, 4.1.4), checked: the list of
//! its capabilities ends, and each structure lies within the 4 GiB that an offset can name.

use core::fmt;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PCI_CAP_ID_VNDR};
use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG,
};

const STATUS: u8 = 0x04;
const HAS_CAPABILITIES: u32 = 1 << 20;
const FIRST_CAPABILITY: u8 = 0x34;
/// Capabilities lie behind the header, and none is shorter than a word.
const FIRST_OFFSET: u8 = 0x40;
const MAX_CAPABILITIES: usize = (256 - FIRST_OFFSET as usize) / 4;
const MSI_X: u8 = 0x11;
const MSI_X_ENTRY_BYTES: u32 = 16;

/// Fields of a virtio capability (`struct virtio_pci_cap`).
const CAP_BAR: u8 = 4;
const CAP_OFFSET: u8 = 8;
const CAP_LENGTH: u8 = 12;
const CAP_MULTIPLIER: u8 = 16;

/// The shortest structures that are of use.
const MIN_COMMON_BYTES: u32 = 56;

/// A structure of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Structure {
    /// The number of the base address register, below 6.
    pub(super) bar: u8,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// A capability to interrupt by messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsiXCapability {
    /// Where it is in the configuration space.
    pub(super) offset: u8,
    /// The table of messages.
    pub(super) table: Structure,
}

/// The capabilities of a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) common: Structure,
    pub(super) notify: Structure,
    /// Bytes between the places at which neighbouring queues are notified.
    pub(super) notify_multiplier: u32,
    pub(super) isr: Structure,
    pub(super) device: Option<Structure>,
    pub(super) msi_x: Option<MsiXCapability>,
}

/// Why the capabilities can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadCapabilities {
    /// Their list has no end, or leads out of the configuration space.
    List,
    /// A structure names registers that can't be.
    Structure,
    /// One of the structures of a modern device is missing.
    Legacy,
}

impl fmt::Display for BadCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "the list of its capabilities does not end",
            Self::Structure => "a capability names registers that can't be",
            Self::Legacy => "it knows only the legacy interface (under QEMU, leave disable-modern=on out)",
        })
    }
}

impl Capabilities {
    /// Reads the capabilities of a function. The first one of each kind counts, as for
    /// `PciTransport`.
    ///
    /// # Errors
    /// [`BadCapabilities`].
    pub(super) fn read(config: &impl ConfigurationAccess, function: DeviceFunction) -> Result<Self, BadCapabilities> {
        let (mut common, mut notify, mut isr, mut device, mut msi_x) = (None, None, None, None, None);
        if config.read_word(function, STATUS) & HAS_CAPABILITIES == 0 {
            return Err(BadCapabilities::Legacy);
        }
        let mut at = config.read_word(function, FIRST_CAPABILITY).to_le_bytes()[0] & !3;
        for count in 0.. {
            if at == 0 {
                break;
            }
            if count == MAX_CAPABILITIES || at < FIRST_OFFSET {
                return Err(BadCapabilities::List);
            }
            let [kind, next, length, structure] = config.read_word(function, at).to_le_bytes();
            match (kind, structure) {
                (PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_COMMON_CFG) if common.is_none() && length >= 16 => {
                    common = Some(Structure::read(config, function, at)?);
                }
                (PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_NOTIFY_CFG) if notify.is_none() && length >= 20 => {
                    let multiplier = config.read_word(function, field(at, CAP_MULTIPLIER)?);
                    notify = Some((Structure::read(config, function, at)?, multiplier));
                }
                (PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_ISR_CFG) if isr.is_none() && length >= 16 => {
                    isr = Some(Structure::read(config, function, at)?);
                }
                (PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_DEVICE_CFG) if device.is_none() && length >= 16 => {
                    device = Some(Structure::read(config, function, at)?);
                }
                (MSI_X, _) if msi_x.is_none() => {
                    let entries = 1 + u32::from(u16::from_le_bytes([length, structure]) & 0x7ff);
                    let [low, ..] = config.read_word(function, field(at, 4)?).to_le_bytes();
                    let offset = config.read_word(function, field(at, 4)?) & !7;
                    let table = Structure { bar: low & 7, offset, bytes: entries * MSI_X_ENTRY_BYTES };
                    msi_x = Some(MsiXCapability { offset: at, table: table.checked()? });
                }
                _ => {}
            }
            at = next & !3;
        }
        let (notify, notify_multiplier) = notify.ok_or(BadCapabilities::Legacy)?;
        let common = common.ok_or(BadCapabilities::Legacy)?;
        if common.bytes < MIN_COMMON_BYTES {
            return Err(BadCapabilities::Structure);
        }
        Ok(Self { common, notify, notify_multiplier, isr: isr.ok_or(BadCapabilities::Legacy)?, device, msi_x })
    }

    /// Returns the structures without which the device can't be used.
    pub(super) fn structures(&self) -> impl Iterator<Item = Structure> {
        [self.common, self.notify, self.isr].into_iter().chain(self.device)
    }
}

impl Structure {
    fn read(
        config: &impl ConfigurationAccess,
        function: DeviceFunction,
        capability: u8,
    ) -> Result<Self, BadCapabilities> {
        let bar = config.read_word(function, field(capability, CAP_BAR)?).to_le_bytes()[0];
        let offset = config.read_word(function, field(capability, CAP_OFFSET)?);
        let bytes = config.read_word(function, field(capability, CAP_LENGTH)?);
        Self { bar, offset, bytes }.checked()
    }

    fn checked(self) -> Result<Self, BadCapabilities> {
        let is_possible = self.bar < 6 && self.bytes > 0 && self.offset.checked_add(self.bytes).is_some();
        if is_possible { Ok(self) } else { Err(BadCapabilities::Structure) }
    }
}

/// Returns the offset of a field of a capability.
fn field(capability: u8, offset: u8) -> Result<u8, BadCapabilities> {
    capability.checked_add(offset).ok_or(BadCapabilities::List)
}

#[cfg(test)]
pub(super) mod tests {
    use virtio_drivers::transport::pci::bus::DeviceFunction;

    use super::super::testing::{FakeBus, at};
    use super::{BadCapabilities, Capabilities, MsiXCapability, Structure};

    /// Adds a disk with the structures and the places that QEMU's has.
    pub(in super::super) fn add_disk(bus: &mut FakeBus, function: DeviceFunction) {
        bus.add(function, 0x1af4, 0x1042);
        bus.set(function, 0x04, 1 << 20);
        bus.set(function, 0x34, 0x98);
        for (word, value) in [
            (0x98, 0x0001_8411 | 1 << 16),
            (0x9c, 0x0000_0001),
            (0x84, 0x0514_7009),
            (0x70, 0x0214_6009),
            (0x74, 4),
            (0x78, 0x3000),
            (0x7c, 0x1000),
            (0x80, 4),
            (0x60, 0x0410_5009),
            (0x64, 4),
            (0x68, 0x2000),
            (0x6c, 0x1000),
            (0x50, 0x0310_4009),
            (0x54, 4),
            (0x58, 0x1000),
            (0x5c, 0x1000),
            (0x40, 0x0110_0009),
            (0x44, 4),
            (0x48, 0),
            (0x4c, 0x1000),
        ] {
            bus.set(function, word, value);
        }
    }

    fn disk() -> FakeBus {
        let mut bus = FakeBus::default();
        add_disk(&mut bus, at(0, 3, 0));
        bus
    }

    fn structure(offset: u32) -> Structure {
        Structure { bar: 4, offset, bytes: 0x1000 }
    }

    #[test]
    fn the_structures_of_a_disk_are_found() {
        let found = Capabilities::read(&disk(), at(0, 3, 0)).unwrap();
        let table = Structure { bar: 1, offset: 0, bytes: 32 };
        assert_eq!(
            found,
            Capabilities {
                common: structure(0),
                notify: structure(0x3000),
                notify_multiplier: 4,
                isr: structure(0x1000),
                device: Some(structure(0x2000)),
                msi_x: Some(MsiXCapability { offset: 0x98, table }),
            }
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let read = |word, value| {
            let mut bus = disk();
            bus.set(at(0, 3, 0), word, value);
            Capabilities::read(&bus, at(0, 3, 0)).map(drop)
        };
        assert_eq!(read(0x40, 0x0110_9809), Err(BadCapabilities::List), "a circle");
        assert_eq!(read(0x40, 0x0110_1009), Err(BadCapabilities::List), "into the header");
        assert_eq!(read(0x34, 0xfc), Err(BadCapabilities::Legacy), "one without a kind, at the end");
        assert_eq!(read(0x40, 0x0710_0009), Err(BadCapabilities::Legacy), "no common structure");
        assert_eq!(read(0x04, 0), Err(BadCapabilities::Legacy), "no capabilities");
        assert_eq!(read(0x44, 6), Err(BadCapabilities::Structure), "no such register of an address");
        assert_eq!(read(0x7c, 0), Err(BadCapabilities::Structure), "no bytes");
        assert_eq!(read(0x78, u32::MAX), Err(BadCapabilities::Structure), "beyond all addresses");
        assert_eq!(read(0x4c, 16), Err(BadCapabilities::Structure), "half of the common structure");
    }

    #[test]
    fn a_capability_at_the_end_has_no_fields() {
        let mut bus = disk();
        bus.set(at(0, 3, 0), 0x34, 0xfc);
        bus.set(at(0, 3, 0), 0xfc, 0x0110_0009);
        assert_eq!(Capabilities::read(&bus, at(0, 3, 0)).map(drop), Err(BadCapabilities::List));
    }
}
