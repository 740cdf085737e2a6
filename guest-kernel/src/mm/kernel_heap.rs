//! The kernel heap: a fixed arena in the image for the kernel's own metadata. It is never
//! demand-paged and never shared with applications.
//!
//! [`KernelHeap`] is an allocator that is named where it is used (`Vec<Region, KernelHeap>`); the
//! global allocator belongs to the application. A buddy system frees in time linear in the number
//! of free blocks of a size, which is acceptable for an arena this small.
#![allow(unsafe_code, reason = "implements an allocator over a static arena")]

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};
use buddy_system_allocator::Heap;

use crate::config::KERNEL_HEAP_BYTES;
use crate::sync::{LockRank, SpinLock};

/// Largest block: 2^20 bytes.
const ORDERS: usize = 21;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; KERNEL_HEAP_BYTES]>);

// SAFETY: the arena's bytes are only reached through blocks that the heap below hands out under its
// lock.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; KERNEL_HEAP_BYTES]));

/// `None` until the first allocation hands the arena over.
static HEAP: SpinLock<Option<Heap<ORDERS>>> = SpinLock::new(LockRank::KernelHeap, None);

/// The kernel heap as an allocator.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KernelHeap;

// SAFETY: blocks come from the buddy heap under its lock and stay valid until they are deallocated;
// every `KernelHeap` is the same.
unsafe impl Allocator for KernelHeap {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(NonNull::slice_from_raw_parts(layout.dangling_ptr(), 0));
        }
        let mut heap = HEAP.lock();
        let pointer = heap.get_or_insert_with(new_heap).alloc(layout).map_err(|()| AllocError)?;
        Ok(NonNull::slice_from_raw_parts(pointer, layout.size()))
    }

    unsafe fn deallocate(&self, pointer: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        if let Some(heap) = HEAP.lock().as_mut() {
            // SAFETY: the caller got `pointer` from `allocate` with this layout.
            unsafe { heap.dealloc(pointer, layout) };
        }
    }
}

fn new_heap() -> Heap<ORDERS> {
    let mut heap = Heap::empty();
    // SAFETY: the arena is static, no other code uses it, and this runs once, under the heap's
    // lock.
    unsafe { heap.init(ARENA.0.get().expose_provenance(), KERNEL_HEAP_BYTES) };
    heap
}
