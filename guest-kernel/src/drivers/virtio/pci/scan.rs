//! Which functions a PCI bus has.

use core::ops::Range;

use allocator_api2::vec::Vec;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use crate::mm::KernelHeap;

/// The most functions that are noted.
const MAX_FUNCTIONS: usize = 128;

const VENDOR: u8 = 0x00;
const CLASS: u8 = 0x08;
const HEADER_TYPE: u8 = 0x0c;
const BUS_NUMBERS: u8 = 0x18;

/// What a configuration space reads as where there is no function.
const ABSENT: u32 = 0xffff_ffff;
/// Bit of the header type: the device has more than one function.
const IS_MULTI_FUNCTION: u8 = 1 << 7;
/// Class and subclass of a bridge to another bus.
const BRIDGE: u16 = 0x0604;

/// Registers of a bridge: the ranges of addresses that it passes on, in units of 1 MiB (PCI-to-PCI
/// Bridge Architecture, 3.2.5.8).
const BRIDGE_WINDOWS: [u8; 2] = [0x20, 0x24];
const BRIDGE_WINDOW_BYTES: u64 = 1 << 20;

/// A function that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) at: DeviceFunction,
    pub(super) vendor: u16,
    pub(super) device: u16,
    pub(super) is_bridge: bool,
}

/// Returns the functions on the first bus and on those behind its bridges, as firmware has numbered
/// them. No bus is visited twice, whatever the bridges say.
pub(super) fn functions(config: &impl ConfigurationAccess) -> Vec<Function, KernelHeap> {
    let mut found = Vec::new_in(KernelHeap);
    let mut buses = Buses::default();
    buses.add(0);
    while let Some(bus) = buses.next() {
        for device in 0..32 {
            let first = DeviceFunction { bus, device, function: 0 };
            let Some(function) = Function::read(config, first) else { continue };
            let header = config.read_word(first, HEADER_TYPE).to_le_bytes()[2];
            let others = if header & IS_MULTI_FUNCTION == 0 { 1..1 } else { 1..8 };
            let others = others.filter_map(|function| Function::read(config, DeviceFunction { function, ..first }));
            for function in core::iter::once(function).chain(others) {
                if found.len() == MAX_FUNCTIONS || found.try_reserve(1).is_err() {
                    return found;
                }
                found.push(function);
                if function.is_bridge {
                    buses.add(config.read_word(function.at, BUS_NUMBERS).to_le_bytes()[1]);
                }
            }
        }
    }
    found
}

impl Function {
    fn read(config: &impl ConfigurationAccess, at: DeviceFunction) -> Option<Self> {
        let identity = config.read_word(at, VENDOR);
        if identity == ABSENT || identity == 0 {
            return None;
        }
        let [vendor_low, vendor_high, device_low, device_high] = identity.to_le_bytes();
        let [_, _, subclass, class] = config.read_word(at, CLASS).to_le_bytes();
        Some(Self {
            at,
            vendor: u16::from_le_bytes([vendor_low, vendor_high]),
            device: u16::from_le_bytes([device_low, device_high]),
            is_bridge: u16::from_be_bytes([class, subclass]) == BRIDGE,
        })
    }

    /// Returns the addresses that the function passes on to another bus.
    pub(super) fn windows(&self, config: &impl ConfigurationAccess) -> impl Iterator<Item = Range<u64>> {
        let registers = BRIDGE_WINDOWS.into_iter().filter(|_| self.is_bridge);
        registers.map(|register| {
            let units = config.read_word(self.at, register);
            let unit = |bits: u32| u64::from(bits & 0xfff0) >> 4;
            unit(units) * BRIDGE_WINDOW_BYTES..(unit(units >> 16) + 1) * BRIDGE_WINDOW_BYTES
        })
    }
}

/// Buses that are to be visited, and those that were: a bit for each.
#[derive(Default)]
struct Buses {
    known: [u128; 2],
    visited: [u128; 2],
}

impl Buses {
    fn add(&mut self, bus: u8) {
        self.known[usize::from(bus / 128)] |= 1 << (bus % 128);
    }

    fn next(&mut self) -> Option<u8> {
        let is_new = |bus: &u8| {
            let (word, bit) = (usize::from(bus / 128), 1 << (bus % 128));
            self.known[word] & bit != 0 && self.visited[word] & bit == 0
        };
        let bus = (0..=u8::MAX).find(is_new)?;
        self.visited[usize::from(bus / 128)] |= 1 << (bus % 128);
        Some(bus)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FakeBus, at};
    use super::functions;

    #[test]
    fn functions_of_all_buses_are_found() {
        let mut bus = FakeBus::default();
        bus.add(at(0, 0, 0), 0x8086, 0x1237);
        bus.add(at(0, 3, 0), 0x1af4, 0x1042);
        bus.add(at(0, 3, 1), 0x1af4, 0x1045); // of a device that says it has one function
        bus.add(at(0, 5, 0), 0x8086, 0x7000);
        bus.set_multi_function(at(0, 5, 0));
        bus.add(at(0, 5, 7), 0x8086, 0x7010);
        bus.add_bridge(at(0, 31, 0), 2);
        bus.add(at(2, 0, 0), 0x1af4, 0x1041);
        let found: Vec<_> = functions(&bus).iter().map(|function| (function.at, function.device)).collect();
        let expected = [
            (at(0, 0, 0), 0x1237),
            (at(0, 3, 0), 0x1042),
            (at(0, 5, 0), 0x7000),
            (at(0, 5, 7), 0x7010),
            (at(0, 31, 0), 1),
            (at(2, 0, 0), 0x1041),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn bridges_in_a_circle_end() {
        let mut bus = FakeBus::default();
        bus.add_bridge(at(0, 0, 0), 1);
        bus.add_bridge(at(1, 0, 0), 0);
        bus.add_bridge(at(1, 1, 0), 1);
        assert_eq!(functions(&bus).len(), 3);
    }
}
