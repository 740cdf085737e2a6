//! A driver's side of a queue, for tests: descriptors and rings written directly, valid or not.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::registers::QueueSetup;

/// Descriptors of the queue.
pub(super) const SIZE: u16 = 16;
/// Where its parts are.
pub(super) const SETUP: QueueSetup =
    QueueSetup { size: SIZE as u32, ready: true, descriptors: 0, driver_ring: 0x200, device_ring: 0x300 };
/// Where tests have their headers, and status bytes.
pub(super) const HEADER: u64 = 0x1000;
pub(super) const STATUS: u64 = 0x1100;
/// Where tests have their data.
pub(super) const DATA: u64 = 0x2000;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;

/// Request types.
pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

/// A driver.
#[derive(Debug)]
pub(super) struct Driver<'a> {
    pub(super) memory: &'a GuestMemoryMmap,
    setup: QueueSetup,
    next_descriptor: u16,
    next_available: u16,
    seen_used: u16,
}

impl<'a> Driver<'a> {
    /// Creates a driver with empty rings.
    pub(super) fn new(memory: &'a GuestMemoryMmap) -> Self {
        memory.write_slice(&[0; 0x1000], GuestAddress(0)).unwrap();
        Self::untouched(memory)
    }

    /// Creates a driver that has written nothing yet.
    pub(super) fn untouched(memory: &'a GuestMemoryMmap) -> Self {
        Self::of_queue(memory, SETUP)
    }

    /// Creates a driver of the queue at these places, which has written nothing yet.
    pub(super) fn of_queue(memory: &'a GuestMemoryMmap, setup: QueueSetup) -> Self {
        Self { memory, setup, next_descriptor: 0, next_available: 0, seen_used: 0 }
    }

    pub(super) fn put_descriptor(&self, index: u16, descriptor: Descriptor) {
        let Descriptor { address, bytes, flags, next } = descriptor;
        let place = self.setup.descriptors + u64::from(index) * 16;
        let rest = u64::from(bytes) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.memory.write_obj([address, rest], GuestAddress(place)).unwrap();
    }

    /// Makes the chain at `head` available.
    pub(super) fn offer(&mut self, head: u16) {
        let place = self.setup.driver_ring + 4 + u64::from(self.next_available % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available(self.next_available);
    }

    pub(super) fn set_available(&self, index: u16) {
        self.memory.store(index, GuestAddress(self.setup.driver_ring + 2), Ordering::Release).unwrap();
    }

    pub(super) fn set_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(self.setup.driver_ring)).unwrap();
    }

    /// Adds a chain of these parts: addresses, lengths, and [`WRITE`] where the device may write.
    pub(super) fn offer_parts(&mut self, parts: &[(u64, u32, u16)]) -> u16 {
        let head = self.next_descriptor;
        for (index, &(address, bytes, flags)) in parts.iter().enumerate() {
            let this = self.next_descriptor;
            self.next_descriptor = (this + 1) % SIZE;
            let chained = if index + 1 < parts.len() { NEXT } else { 0 };
            self.put_descriptor(
                this,
                Descriptor { address, bytes, flags: flags | chained, next: self.next_descriptor },
            );
        }
        self.offer(head);
        head
    }

    /// Adds a request with its data in these parts, header and status where tests have them.
    pub(super) fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) {
        self.memory.write_obj([u64::from(kind), sector], GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(0xff_u8, GuestAddress(STATUS)).unwrap();
        let header = [(HEADER, 16, 0)];
        let status = [(STATUS, 1, WRITE)];
        self.offer_parts(&[&header[..], data, &status[..]].concat());
    }

    /// Returns the next finished chain: its head and the bytes written.
    pub(super) fn finished(&mut self) -> Option<(u32, u32)> {
        let index: u16 = self.memory.load(GuestAddress(self.setup.device_ring + 2), Ordering::Acquire).unwrap();
        if index == self.seen_used {
            return None;
        }
        let place = self.setup.device_ring + 4 + u64::from(self.seen_used % SIZE) * 8;
        self.seen_used = self.seen_used.wrapping_add(1);
        let [head, written]: [u32; 2] = self.memory.read_obj(GuestAddress(place)).unwrap();
        Some((head, written))
    }

    pub(super) fn status(&self) -> u8 {
        self.memory.read_obj(GuestAddress(STATUS)).unwrap()
    }

    pub(super) fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(super) fn get(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.memory.read_slice(&mut read, GuestAddress(address)).unwrap();
        read
    }
}
