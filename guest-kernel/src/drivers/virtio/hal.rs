//! The memory that virtio devices and this kernel share: all of it, at the same addresses.
#![allow(unsafe_code, reason = "memory shared with devices")]

use core::alloc::Layout;
use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_SIZE, to_usize};
use allocator_api2::alloc::Allocator;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::mm::KernelHeap;

/// This kernel, as the crate `virtio-drivers` needs it. A queue must be contiguous, so its memory
/// comes from the kernel heap, which is part of the image.
#[derive(Debug)]
pub(crate) struct KernelHal;

fn layout(pages: usize) -> Option<Layout> {
    Layout::from_size_align(pages.checked_mul(FRAME_SIZE)?, FRAME_SIZE).ok()
}

// SAFETY: memory of the kernel heap is exclusive, page-aligned as the layout says, and zeroed; all
// memory of the guest is mapped at its physical address.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = layout(pages).and_then(|layout| KernelHeap.allocate_zeroed(layout).ok());
        // An address of zero says that there is no memory.
        memory.map_or((0, NonNull::dangling()), |memory| (memory.addr().get() as u64, memory.cast()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        if let Some(layout) = layout(pages) {
            // SAFETY: the caller got the memory from `dma_alloc` with this many pages.
            unsafe { KernelHeap.deallocate(memory, layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        let registers = core::ptr::with_exposed_provenance_mut(to_usize(address));
        NonNull::new(registers).expect("registers that are in the device hole have an address")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
