//! What reclaim has done and holds.

use aerostat_abi::statistics::AGES;
use aerostat_abi::units::FrameCount;

use super::RECLAIMER;
use super::scan::efforts::Efforts;
use super::swap::compressed_pool::CompressedPoolStatistics;
use super::swap::swap_disk::{DiskStatistics, SwapDisk};
use crate::mm::activity;
use crate::mm::compaction::collapse;
use crate::time::Instant;

/// What reclaim has done since boot and holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReclaimStatistics {
    /// Pages in the compressed pool, and the frames that they occupy.
    pub(crate) compressed_pool: CompressedPoolStatistics,
    pub(crate) disk: DiskStatistics,
    /// Pages on disk.
    pub(crate) pages_on_disk: u64,
    /// Evicted pages that repeat one word and need no memory.
    pub(crate) filled_pages: u64,
    /// Pages of files in memory.
    pub(crate) file_pages: u64,
    /// Pages evicted, those of files included.
    pub(crate) evictions: u64,
    /// Pages restored.
    pub(crate) restores: u64,
    /// Of those, pages that a thread had touched. The others came with them.
    pub(crate) touched_restores: u64,
    /// Of those, pages that had been evicted shortly before: memory is too small for the work.
    pub(crate) refaults: u64,
    /// Pages that were found not to compress.
    pub(crate) incompressible: u64,
    /// Pages dropped because the application did not need their contents.
    pub(crate) discards: u64,
    /// The guest restores more of what it has just evicted than it can work with.
    pub(crate) is_thrashing: bool,
    /// How often that began.
    pub(crate) thrash_episodes: u64,
    /// Tables of pages that became huge pages.
    pub(crate) collapses: u64,
    /// Pages scanned and freed, by urgency.
    pub(crate) efforts: Efforts,
    /// Pages in memory by age, as the last samples found them, or the last complete scans while
    /// there are no samples.
    pub(crate) ages: [u64; AGES],
}

#[cfg(test)]
impl ReclaimStatistics {
    /// Returns how many anonymous pages are evicted.
    pub(crate) fn evicted_pages(&self) -> FrameCount {
        FrameCount(self.compressed_pool.pages + self.filled_pages + self.pages_on_disk)
    }
}

/// Returns the current metrics.
pub(crate) fn statistics() -> ReclaimStatistics {
    let mut reclaimer = RECLAIMER.lock();
    let is_thrashing = reclaimer.scanner.is_thrashing(Instant::now());
    let (tally, swap) = (reclaimer.scanner.tally(), reclaimer.swap.statistics());
    ReclaimStatistics {
        compressed_pool: reclaimer.swap.pool.statistics(),
        disk: reclaimer.swap.disk.as_ref().map_or_else(DiskStatistics::default, SwapDisk::statistics),
        pages_on_disk: swap.pages_on_disk,
        filled_pages: swap.filled_pages,
        file_pages: reclaimer.file_pages(),
        evictions: tally.evictions,
        restores: tally.restores,
        touched_restores: tally.touched_restores,
        refaults: tally.refaults,
        incompressible: swap.incompressible,
        discards: reclaimer.discards(),
        is_thrashing,
        thrash_episodes: reclaimer.scanner.thrash_episodes(),
        collapses: collapse::collapses(),
        efforts: reclaimer.scanner.efforts(),
        ages: activity::ages(reclaimer.file_pages()).unwrap_or_else(|| reclaimer.scanner.ages()),
    }
}

/// Returns how many pages were evicted or dropped since boot, and how many frames were written to
/// the swap disk.
pub(crate) fn evicted_and_written() -> (FrameCount, FrameCount) {
    let reclaimer = RECLAIMER.lock();
    let written = reclaimer.swap.disk.as_ref().map_or(0, |disk| disk.statistics().writes);
    (FrameCount(reclaimer.evicted()), FrameCount(written))
}

/// Returns how many frames are on their way to the swap disk.
pub(crate) fn leaving() -> FrameCount {
    FrameCount(RECLAIMER.lock().swap.leaving() as u64)
}

/// Returns whether anonymous memory can be evicted.
pub(crate) fn is_on() -> bool {
    RECLAIMER.lock().scanner.evicts_anonymous()
}

/// Returns whether the guest is busy restoring what it has just evicted: it has less memory than it
/// works on, and would stop if it lost more.
pub(crate) fn is_thrashing() -> bool {
    RECLAIMER.lock().scanner.is_thrashing(Instant::now())
}

/// Recounts the compressed pool.
///
/// # Errors
/// Returns the first disagreement, as a sentence.
pub(crate) fn validate() -> Result<(), &'static str> {
    RECLAIMER.lock().swap.pool.validate()
}
