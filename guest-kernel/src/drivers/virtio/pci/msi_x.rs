//! Interrupts by messages (PCI Local Bus 3.0, 6.8.2; virtio 1.2, 4.1.5.1.2): one message for all of
//! a device's queues and its configuration.
#![allow(unsafe_code, reason = "memory-mapped registers")]

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

use super::super::mmio;
use super::config_space::ConfigSpace;
use super::open::CommonRegisters;
use crate::layout::LOCAL_APIC;

/// Bits of the word with the capability's header and control.
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;

/// Fields of an entry of the table.
const ADDRESS_LOW: u64 = 0;
const ADDRESS_HIGH: u64 = 4;
const MESSAGE: u64 = 8;
const CONTROL: u64 = 12;

/// Where messages to the local APIC with the identity 0 go (Intel SDM vol. 3, 10.11.1).
const FIRST_CPU: u32 = 0xfee0_0000;
const _: () = assert!(FIRST_CPU as u64 == LOCAL_APIC);

/// The entry that is used.
const ENTRY: u16 = 0;

/// The messages of a device.
#[derive(Debug)]
pub(in super::super) struct MsiX {
    pub(super) config: ConfigSpace,
    pub(super) function: DeviceFunction,
    /// Offset of the capability.
    pub(super) offset: u8,
    /// Address of the table, which is mapped.
    pub(super) table: u64,
}

impl MsiX {
    /// Lets all that happens to the device raise `vector` on the first CPU. Returns whether the
    /// device has taken that; if not, it sends no messages.
    pub(in super::super) fn enable(&mut self, registers: &CommonRegisters, vector: u8, queues: u16) -> bool {
        self.control(ENABLE | MASK_ALL);
        let message = [(ADDRESS_LOW, FIRST_CPU), (ADDRESS_HIGH, 0), (MESSAGE, u32::from(vector)), (CONTROL, 0)];
        for (field, value) in message {
            // SAFETY: the table is mapped, and its first entry is free; the vector has a gate.
            unsafe { mmio::write(self.table + field, value) };
        }
        self.control(ENABLE);
        let is_taken = registers.direct_interrupts(ENTRY, queues);
        if !is_taken {
            self.control(0);
        }
        is_taken
    }

    fn control(&mut self, bits: u32) {
        let word = self.config.read_word(self.function, self.offset);
        self.config.write_word(self.function, self.offset, word & !(ENABLE | MASK_ALL) | bits);
    }
}
