//! Memory for applications: mappings ([`Mapping`]), blocks that are known by their numbers
//! ([`Pinned`]), metrics ([`memory`]), and warnings of pressure ([`on_pressure`]).

mod mapping;
mod pinned;
mod pressure;

use aerostat_abi::units::FrameCount;

pub use self::mapping::{Mapping, ReadOnlyMapping};
pub use self::pinned::{Frames, Pinned};
pub use self::pressure::on_pressure;
pub use crate::mm::OutOfMemory;
pub use crate::mm::advice::RegionStatistics;
pub use crate::mm::shortage::Pressure;
use crate::{balloon, mm};

/// The guest's memory at one moment. Counts of events begin at boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryInfo {
    /// The machine's memory, ballooned frames included.
    pub total: FrameCount,
    /// Guest size: total less balloon.
    pub size: FrameCount,
    /// Frames in the balloon; where an application drives it, those of the initial balloon that it
    /// has not claimed.
    pub ballooned: FrameCount,
    /// Frames that are not used.
    pub free: FrameCount,
    /// What can still be allocated: free memory and swap headroom that are not committed.
    pub available: FrameCount,
    /// Page faults resolved with a 2 MiB mapping.
    pub huge_faults: u64,
    /// Page faults resolved with 4 KiB mappings.
    pub small_faults: u64,
    /// Tables of 4 KiB pages that became 2 MiB pages again.
    pub collapses: u64,
    /// Pages moved so that huge frames became free as a whole.
    pub moved_pages: u64,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
    /// Allocations that failed.
    pub allocation_failures: u64,
    /// Pages whose contents are in the compressed pool, and the frames that they occupy there.
    pub compressed_pages: u64,
    /// Frames of the compressed pool.
    pub compressed_frames: FrameCount,
    /// Pages that consist of one repeated word, and occupy nothing.
    pub filled_pages: u64,
    /// Pages evicted.
    pub evictions: u64,
    /// Evicted pages brought back.
    pub restores: u64,
    /// Of those, pages that had been evicted recently.
    pub refaults: u64,
    /// Pages dropped instead of evicted, as the application had discarded them lazily
    /// ([`Mapping::discard_lazily`]).
    pub discards: u64,
    /// Pages on the swap disk.
    pub swapped_pages: u64,
    /// Slots of 4 KiB on the swap disk that can be used.
    pub swap_slots: u64,
    /// Slots in use.
    pub swap_slots_used: u64,
    /// Slots read from the swap disk.
    pub swap_in: u64,
    /// Slots written to the swap disk.
    pub swap_out: u64,
    /// Transfers from or to the swap disk that failed.
    pub swap_errors: u64,
    /// Nanoseconds in which at least one thread waited for memory.
    pub stalled_ns: u64,
    /// The same in the last five to ten seconds, in thousandths of the time.
    pub pressure_per_mille: u64,
    /// Whether the guest mostly brings back what it has just evicted: it has less memory than its
    /// working set.
    pub is_thrashing: bool,
    /// Times that this began.
    pub thrash_episodes: u64,
}

/// Returns the current metrics.
#[must_use]
pub fn memory() -> MemoryInfo {
    let ballooned = balloon::size();
    let memory = mm::statistics();
    MemoryInfo {
        total: memory.total,
        size: memory.total.saturating_sub(ballooned),
        ballooned,
        free: memory.frames.free,
        available: memory.frames.available,
        huge_faults: memory.faults.huge,
        small_faults: memory.faults.small,
        collapses: memory.reclaim.collapses,
        moved_pages: memory.moved_pages,
        major_faults: memory.faults.major,
        allocation_failures: memory.slow_path.failures,
        compressed_pages: memory.reclaim.compressed_pool.pages,
        compressed_frames: memory.reclaim.compressed_pool.frames,
        filled_pages: memory.reclaim.filled_pages,
        evictions: memory.reclaim.evictions,
        restores: memory.reclaim.restores,
        refaults: memory.reclaim.refaults,
        discards: memory.reclaim.discards,
        swapped_pages: memory.reclaim.pages_on_disk,
        swap_slots: memory.reclaim.disk.slots,
        swap_slots_used: memory.reclaim.disk.used_slots,
        swap_in: memory.reclaim.disk.reads,
        swap_out: memory.reclaim.disk.writes,
        swap_errors: memory.reclaim.disk.errors,
        stalled_ns: memory.pressure.stalled_ns,
        pressure_per_mille: memory.pressure.recent_per_mille,
        is_thrashing: memory.reclaim.is_thrashing,
        thrash_episodes: memory.reclaim.thrash_episodes,
    }
}

/// Evicts cold pages until `wanted` more frames are free or no page can be evicted. Returns how
/// many frames became free: none if reclaim is off. For a service that knows that it will be idle,
/// or that it will need memory quickly soon (Linux: `memory.reclaim` of a control group).
pub fn reclaim(wanted: FrameCount) -> FrameCount {
    mm::reclaim::reclaim(wanted)
}

/// Recounts the kernel's accounts of frames, and checks its threads' stacks. For tests.
///
/// # Errors
/// Returns the first disagreement, as a sentence.
pub fn validate() -> Result<(), &'static str> {
    mm::validate().and_then(|()| crate::thread::validate())
}
