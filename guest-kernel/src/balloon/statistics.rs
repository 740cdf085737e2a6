//! What the guest reports to its host: a record of [`Statistics`], with those of memory and of the
//! driver.

use core::fmt::{Display, Write as _};

use aerostat_abi::statistics::{STATUSES, Statistics};
use aerostat_abi::text::Text;
use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_balloon_driver::{Driver, PageList};

use crate::config::KERNEL_FLOOR;
use crate::mm::{self, MemoryStatistics};
use crate::progress;

/// Returns the guest's current report, with the `wanted` frames that threads wait for.
pub(super) fn record(driver: &Driver<impl PageList>, wanted: FrameCount) -> Statistics {
    debug_assert_eq!(mm::validate(), Ok(()));
    let memory = mm::statistics();
    let MemoryStatistics { frames, faults, slow_path, reclaim, pressure, .. } = memory;
    let metrics = driver.metrics();
    let progress = progress::latest();
    Statistics {
        total_memory_bytes: memory.total.bytes(),
        free_memory_bytes: frames.free.bytes(),
        available_memory_bytes: available(&memory).bytes(),
        disk_caches_bytes: bytes(reclaim.file_pages),
        balloon_bytes: driver.balloon().bytes(),
        committed_bytes: committed(driver, &memory).bytes(),
        committable_bytes: frames.available.bytes(),
        wanted_bytes: wanted.bytes(),
        zswapped_bytes: bytes(reclaim.compressed_pool.pages),
        zswap_bytes: reclaim.compressed_pool.frames.bytes(),
        swap_total_bytes: bytes(reclaim.disk.slots),
        swap_free_bytes: bytes(reclaim.disk.slots.saturating_sub(reclaim.disk.used_slots)),
        swapped_bytes: bytes(reclaim.pages_on_disk),
        backed_free_bytes: memory.backed_free.bytes(),
        working_set_bytes: reclaim.ages.map(bytes),
        swap_in_bytes: bytes(reclaim.disk.reads),
        swap_out_bytes: bytes(reclaim.disk.writes),
        major_faults: faults.major,
        minor_faults: faults.minor,
        huge_faults: faults.huge,
        alloc_stalls: slow_path.stalls,
        alloc_failures: slow_path.failures,
        async_scan_bytes: bytes(reclaim.efforts.background.scanned),
        direct_scan_bytes: bytes(reclaim.efforts.direct.scanned),
        async_reclaim_bytes: bytes(reclaim.efforts.background.freed),
        direct_reclaim_bytes: bytes(reclaim.efforts.direct.freed),
        evictions: reclaim.evictions,
        restores: reclaim.restores,
        refaults: reclaim.refaults,
        stalled_ns: pressure.stalled_ns,
        pressure_per_mille: pressure.recent_per_mille,
        rate_bytes_per_s: bytes(driver.frames_per_s()),
        balloon_alloc_failures: metrics.allocation_failures,
        inflating_ns: metrics.inflating_ns,
        deflating_ns: metrics.deflating_ns,
        refused_entries: refused_entries(driver),
        balloon_state: text(driver.state()),
        balloon_error: metrics.last_failure.map_or(Text::EMPTY, text),
        verified_bytes: progress.verified_bytes,
        app_errors: progress.errors,
        activity: progress.activity,
    }
}

/// Returns the bytes in a number of frames, pages or slots.
fn bytes(frames: u64) -> u64 {
    frames.saturating_mul(FRAME_BYTES)
}

/// Returns the frames that could be used without eviction, pages of files among them.
fn available(memory: &MemoryStatistics) -> FrameCount {
    let free = memory.frames.free.saturating_sub(KERNEL_FLOOR);
    free.saturating_add(FrameCount(memory.reclaim.file_pages))
}

/// Returns the frames that would be in use if nothing were evicted and every commit charge were
/// used.
fn committed(driver: &Driver<impl PageList>, memory: &MemoryStatistics) -> FrameCount {
    let used = driver.size().saturating_sub(memory.frames.free).saturating_sub(memory.reclaim.compressed_pool.frames);
    used.saturating_add(memory.frames.committed)
}

/// Returns the refused entries by the code of their status. The record has room for more codes.
fn refused_entries(driver: &Driver<impl PageList>) -> [u64; STATUSES] {
    let known = driver.metrics().refused_entries;
    core::array::from_fn(|code| known.get(code).copied().unwrap_or(0))
}

fn text(what: impl Display) -> Text {
    let mut text = Text::EMPTY;
    let written = write!(text, "{what}");
    debug_assert_eq!(written, Ok(()), "a text that does not fit is cut without an error");
    text
}
