//! Memory management, from frames to the application's heap.
//!
//! * [`frames`]: the frame allocator as every CPU uses it; [`frame_allocator`]: which frames are
//!   free, committed or ballooned; [`frame_cache`]: a CPU's stock of free frames; [`block`]: owned
//!   frames; [`frame_set`], [`huge_frame_set`], [`bit_tree`], [`bump`]: the parts of the allocator.
//! * [`address_space`]: regions, how they are created and released, and the decision behind a page
//!   fault; [`page_table`]: slots and pages; [`fault`]: carrying that decision out.
//! * [`advice`]: what an application says about its regions; [`mod@file`]: the region whose pages
//!   are on a disk; [`shortage`]: what the application is told when memory runs short.
//! * [`reclaim`]: evicting pages and restoring them; [`compaction`]: moving pages so that huge
//!   frames become whole; [`background`]: what both need from the threads above.
//! * [`slow_path`]: what is tried when no memory is free; [`kernel_heap`], [`pinned`]: the kernel's
//!   own memory; [`sizing`], [`watermarks`]: what follows from the guest's current size;
//!   [`activity`], [`pressure`], [`mod@statistics`]: what is reported.
//! * `start`: sets all of this up; `identity`: the map through which the kernel reaches frames.
//!
//! Memory is committed when it is allocated, and its frames are allocated when it is first touched.

pub(crate) mod activity;
pub(crate) mod address_space;
pub(crate) mod advice;
pub(crate) mod background;
mod bit_tree;
pub(crate) mod block;
pub(crate) mod bump;
pub(crate) mod compaction;
mod extent;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod frame_allocator;
mod frame_cache;
mod frame_contents;
pub(crate) mod frame_set;
mod frames;
mod huge_frame_set;
#[cfg(target_os = "none")]
pub(crate) mod identity;
mod kernel_heap;
pub(crate) mod page_table;
#[cfg(target_os = "none")]
pub(crate) mod pinned;
mod poison;
pub(crate) mod pressure;
pub(crate) mod reclaim;
pub(crate) mod shortage;
mod shortfall;
mod sizing;
pub(crate) mod slice;
pub(crate) mod slow_path;
#[cfg(target_os = "none")]
pub(crate) mod start;
mod statistics;
#[cfg(target_os = "none")]
pub(crate) mod trap;
mod watermarks;

pub(crate) use address_space::{CommitCharge, SPACE, Space};
pub(crate) use block::{Block, BlockSize};
#[cfg(any(test, all(feature = "host-bench", not(target_os = "none"))))]
pub(crate) use frame_allocator::FrameAllocator;
pub(crate) use frame_allocator::Purpose;
pub(crate) use frames::Frames;
pub(crate) use kernel_heap::KernelHeap;
pub use slow_path::OutOfMemory;

#[cfg_attr(not(target_os = "none"), allow(unused_imports, reason = "most users are compiled for the guest only"))]
pub(crate) use self::{
    address_space::{extend_region, map_committed, map_region, shrink_region, unmap_region},
    extent::{memory_end, total_frames},
    statistics::{MemoryStatistics, statistics, validate},
};

/// The frame allocator. It is empty until memory has been set up.
pub(crate) static FRAMES: Frames = Frames::new();

/// Maps the registers of a device at `address`, in the device hole. Must not be called with a spin
/// lock held.
#[cfg(target_os = "none")]
pub(crate) fn map_registers(address: u64) {
    if let Some(tables) = SPACE.lock().tables_mut() {
        tables.map_registers(address);
    }
}

#[cfg(test)]
pub(crate) mod testing;
