//! What the guest reports to its host: the record of [`Statistics`], filled from the books of memory and of the driver.

use aerostat_abi::statistics::Statistics;
use aerostat_abi::units::FrameCount;

use super::driver::Driver;
use crate::mm::{self, MemoryStatistics};

/// The guest's report now; somebody waits for `wanted` frames.
pub(super) fn record(driver: &Driver, wanted: FrameCount) -> Statistics {
    debug_assert_eq!(driver.ledger.validate(), Ok(()));
    debug_assert_eq!(mm::validate(), Ok(()));
    let memory = mm::statistics();
    let progress = crate::app::progress();
    Statistics {
        total_frames: memory.total.0,
        free_frames: memory.frames.free.0,
        committed_frames: committed(driver, &memory).0,
        wanted_frames: wanted.0,
        balloon_frames: driver.ledger.len().0,
        huge_faults: memory.faults.huge,
        small_faults: memory.faults.small,
        allocation_failures: memory.allocation_failures,
        refused_entries: driver.refused_entries(),
        rate_frames_per_s: driver.frames_per_s(),
        verified_bytes: progress.verified_bytes,
        app_errors: progress.errors,
        available_frames: memory.frames.available.0,
        file_frames: memory.reclaim.file_pages,
        compressed_pages: memory.reclaim.tier.pages,
        compressed_frames: memory.reclaim.tier.frames.0,
        swapped_pages: memory.reclaim.pages_on_disk,
        swap_in: memory.reclaim.disk.reads,
        swap_out: memory.reclaim.disk.writes,
        major_faults: memory.faults.major,
        evictions: memory.reclaim.evictions,
        restores: memory.reclaim.restores,
        refaults: memory.reclaim.refaults,
        stalled_ns: memory.pressure.stalled_ns,
        pressure_per_mille: memory.pressure.recent_per_mille,
        activity: progress.activity,
    }
}

/// What the guest would occupy if nothing were evicted and every promise were kept.
fn committed(driver: &Driver, memory: &MemoryStatistics) -> FrameCount {
    let used = driver.size().saturating_sub(memory.frames.free).saturating_sub(memory.reclaim.tier.frames);
    used.saturating_add(memory.frames.promised)
}
