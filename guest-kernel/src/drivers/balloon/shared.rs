//! Pages of the kernel heap that a balloon device reads.
#![allow(unsafe_code, reason = "memory shared with a device")]

use core::ptr::NonNull;

use aerostat_abi::units::FRAME_SIZE;
use virtio_drivers::{BufferDirection, Hal};

use super::queue::{Access, Buffer};
use crate::drivers::virtio::hal::KernelHal;

/// Pages that the device reads, as 32-bit words.
#[derive(Debug)]
pub(super) struct SharedPages {
    first: NonNull<u32>,
    pages: usize,
}

// SAFETY: the memory belongs to this value, and is used through it alone.
unsafe impl Send for SharedPages {}

impl SharedPages {
    /// Allocates zeroed pages. Returns `None` if there is no memory.
    pub(super) fn new(pages: usize) -> Option<Self> {
        let (address, memory) = KernelHal::dma_alloc(pages, BufferDirection::DriverToDevice);
        (address != 0).then(|| Self { first: memory.cast(), pages })
    }

    /// Writes a word, little-endian. The device must not have it.
    pub(super) fn write(&mut self, index: usize, word: u32) {
        assert!(index < self.pages * FRAME_SIZE / size_of::<u32>(), "there is no word {index}");
        // SAFETY: the word is within the pages, as was just checked.
        let place = unsafe { self.first.add(index) };
        // SAFETY: as above; a volatile write, as the device reads it.
        unsafe { place.write_volatile(word.to_le()) };
    }

    /// Returns so many words from `index` on as a buffer for the device.
    pub(super) fn buffer(&self, index: usize, words: usize) -> Buffer {
        let address = self.first.addr().get() + index * size_of::<u32>();
        Buffer { address: address as u64, bytes: words * size_of::<u32>(), access: Access::Read }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: the pages were allocated in `new`, and the device that had them has been reset.
        unsafe { KernelHal::dma_dealloc(0, self.first.cast(), self.pages) };
    }
}
