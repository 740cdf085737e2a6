//! A PCI bus of a test: configuration spaces as arrays, with registers of addresses that behave.

#![allow(unsafe_code, reason = "implements a trait with an unsafe method")]

use std::collections::HashMap;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

const FIRST_BAR: u8 = 0x10;

/// The configuration spaces of a bus.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeBus {
    functions: HashMap<DeviceFunction, FakeFunction>,
}

#[derive(Clone, Debug)]
struct FakeFunction {
    words: [u32; 64],
    /// Bits of the six registers of addresses that can be written.
    writable: [u32; 6],
}

/// Returns the address of a function.
pub(super) fn at(bus: u8, device: u8, function: u8) -> DeviceFunction {
    DeviceFunction { bus, device, function }
}

impl FakeBus {
    pub(super) fn add(&mut self, at: DeviceFunction, vendor: u16, device: u16) {
        let mut words = [0; 64];
        words[0] = u32::from(vendor) | u32::from(device) << 16;
        self.functions.insert(at, FakeFunction { words, writable: [0; 6] });
    }

    pub(super) fn add_bridge(&mut self, at: DeviceFunction, secondary: u8) {
        self.add(at, 0x1b36, 1);
        self.set(at, 0x08, 0x0604_0000);
        self.set(at, 0x0c, 1 << 16);
        self.set(at, 0x18, u32::from(secondary) << 8);
    }

    pub(super) fn set_multi_function(&mut self, at: DeviceFunction) {
        self.set(at, 0x0c, 0x80 << 16);
    }

    /// Sets a word of a configuration space, whether or not it can be written.
    pub(super) fn set(&mut self, at: DeviceFunction, register: u8, value: u32) {
        self.functions.get_mut(&at).unwrap().words[usize::from(register / 4)] = value;
    }

    /// Adds memory of `size` bytes, 64-bit if `kind` says so.
    pub(super) fn add_memory(&mut self, at: DeviceFunction, bar: u8, kind: u32, size: u64, address: u64) {
        self.set(at, FIRST_BAR + 4 * bar, u32::try_from(address & 0xffff_ffff).unwrap() | kind);
        let mask = !(size - 1);
        let function = self.functions.get_mut(&at).unwrap();
        function.writable[usize::from(bar)] = u32::try_from(mask & 0xffff_fff0).unwrap();
        if kind & 0b110 == 0b100 {
            function.writable[usize::from(bar) + 1] = u32::try_from(mask >> 32).unwrap();
            self.set(at, FIRST_BAR + 4 * bar + 4, u32::try_from(address >> 32).unwrap());
        }
    }
}

impl ConfigurationAccess for FakeBus {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.functions.get(&at).map_or(u32::MAX, |function| function.words[usize::from(register / 4)])
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, value: u32) {
        let Some(function) = self.functions.get_mut(&at) else { return };
        let word = &mut function.words[usize::from(register / 4)];
        let writable = match register.checked_sub(FIRST_BAR) {
            Some(offset) if offset < 24 => function.writable[usize::from(offset / 4)],
            _ => u32::MAX,
        };
        *word = *word & !writable | value & writable;
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}
