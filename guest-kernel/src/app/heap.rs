//! The application's heap, and so the image's global allocator.
//!
//! Small objects are in one region that grows and shrinks, and that `talc` manages. An allocation
//! of at least [`REGION_ALLOCATION_BYTES`] gets a region of its own, whose memory is free as soon
//! as the allocation is freed. Both are demand-paged: committed when they are allocated, and mapped
//! when they are touched. If the commit charge is refused, an allocation returns null.
#![allow(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, HUGE_SIZE, to_usize};
use talc::base::Talc;
use talc::source::Manual;

use crate::balloon;
use crate::config::{HEAP_STEP_BYTES, REGION_ALLOCATION_BYTES};
use crate::layout::{APP_HEAP, APP_REGIONS};
use crate::mm;
use crate::sync::LockRank;
use crate::thread::Mutex;

/// The host is told at once of changes of at least this size.
const NOTABLE_BYTES: usize = HUGE_SIZE;

#[global_allocator]
static ALLOCATOR: AppHeap = AppHeap;

static SMALL: Mutex<SmallObjects> =
    Mutex::ranked(LockRank::ApplicationHeap, SmallObjects { talc: Talc::new(Manual), region: None });

struct AppHeap;

// SAFETY: regions are exclusive and mapped on touch until they are freed; `talc` guarantees the
// same within its own region. The layout passed to `dealloc` is the one of the allocation, so both
// sides choose the same way.
unsafe impl GlobalAlloc for AppHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if has_own_region(&layout) { allocate_region(&layout) } else { allocate_small(layout) }
    }

    /// Allocates zeroed memory. New regions read as zero, so large zeroed allocations cost nothing
    /// until they are touched.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout.
        let pointer = unsafe { self.alloc(layout) };
        if !pointer.is_null() && !has_own_region(&layout) {
            // SAFETY: just allocated with at least this size.
            unsafe { pointer.write_bytes(0, layout.size()) };
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if has_own_region(&layout) {
            mm::unmap_region(pointer.expose_provenance() as u64);
            if layout.size() >= NOTABLE_BYTES {
                balloon::report_soon();
            }
        } else {
            SMALL.lock().free(pointer, layout);
        }
    }
}

fn has_own_region(layout: &Layout) -> bool {
    layout.size() >= REGION_ALLOCATION_BYTES && layout.align() <= FRAME_SIZE
}

fn allocate_region(layout: &Layout) -> *mut u8 {
    let Ok(start) = mm::map_region(APP_REGIONS, layout.size() as u64) else { return core::ptr::null_mut() };
    if layout.size() >= NOTABLE_BYTES {
        balloon::report_soon();
    }
    core::ptr::with_exposed_provenance_mut(to_usize(start))
}

struct SmallObjects {
    talc: Talc<Manual, talc::DefaultBinning>,
    /// The heap's region, if there is one yet.
    region: Option<HeapRegion>,
}

#[derive(Clone, Copy)]
struct HeapRegion {
    start: u64,
    /// The end of what is mapped.
    end: u64,
    /// The end that `talc` knows.
    claimed_end: NonNull<u8>,
}

// SAFETY: the pointer is the heap's end and belongs to no thread; it is used only under the lock
// of `SMALL`.
unsafe impl Send for SmallObjects {}

/// Allocates a small object, and grows the heap if necessary. Memory is committed before the heap
/// is locked, as that may take long.
fn allocate_small(layout: Layout) -> *mut u8 {
    loop {
        if let Some(pointer) = SMALL.lock().allocate(layout) {
            return pointer.as_ptr();
        }
        // One page more leaves room for talc's metadata beside the object.
        let bytes = (layout.size() + layout.align()) as u64 + FRAME_BYTES;
        let Ok(room) = mm::CommitCharge::for_region(bytes.next_multiple_of(HEAP_STEP_BYTES)) else {
            return core::ptr::null_mut();
        };
        if !SMALL.lock().grow(room) {
            return core::ptr::null_mut();
        }
    }
}

impl SmallObjects {
    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the global allocator is never asked for zero bytes.
        unsafe { self.talc.try_allocate(layout) }
    }

    fn free(&mut self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller of `dealloc` got the pointer from here with this layout.
        unsafe { self.talc.deallocate(pointer, layout) };
        self.shrink();
    }

    /// Adds committed room to the heap. Returns `false` if there are no addresses for it.
    fn grow(&mut self, room: mm::CommitCharge) -> bool {
        let bytes = room.bytes();
        let pointer = |address: u64| core::ptr::with_exposed_provenance_mut::<u8>(to_usize(address));
        let Some(region) = &mut self.region else {
            let Ok(start) = mm::map_committed(APP_HEAP, room) else { return false };
            // SAFETY: the region is mapped on touch and belongs to the heap alone.
            let Some(claimed_end) = (unsafe { self.talc.claim(pointer(start), to_usize(bytes)) }) else { return false };
            self.region = Some(HeapRegion { start, end: start + bytes, claimed_end });
            return true;
        };
        mm::extend_region(region.start, room);
        region.end += bytes;
        // SAFETY: the heap's end is the one that talc last returned, and the new memory belongs to
        // the region.
        region.claimed_end = unsafe { self.talc.extend(region.claimed_end, pointer(region.end)) };
        true
    }

    /// Shrinks the heap if its free end is several steps long.
    fn shrink(&mut self) {
        let Some(region) = &mut self.region else { return };
        // SAFETY: the heap's end is the one that talc last returned.
        let reserved = unsafe { self.talc.reserved(region.claimed_end) };
        let used_end = reserved.up_to.as_ptr().expose_provenance() as u64;
        let keep = (used_end + HEAP_STEP_BYTES).next_multiple_of(HEAP_STEP_BYTES).max(region.start + HEAP_STEP_BYTES);
        if keep + 2 * HEAP_STEP_BYTES > region.end {
            return;
        }
        let new_end = core::ptr::with_exposed_provenance_mut::<u8>(to_usize(keep));
        // SAFETY: as above; talc does not use what lies behind the returned end.
        if let Some(end) = unsafe { self.talc.truncate(region.claimed_end, new_end) } {
            region.claimed_end = end;
            mm::shrink_region(region.start, keep);
            region.end = keep;
        }
    }
}
