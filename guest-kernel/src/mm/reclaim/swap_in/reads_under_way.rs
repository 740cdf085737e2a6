//! Reads that a thread waits for: while they last, their frames can neither be used nor evicted.
//!
//! They may be the last frames of the guest. A thread that finds no frame then waits until such a
//! read has ended ([`wait_for_reads`]), as eviction can go on afterwards.

use crate::arch::x86_64::cpu;
use crate::mm::reclaim::RECLAIMER;
use crate::mm::reclaim::swap::disk::Disk;

/// The reads that threads wait for.
pub(in crate::mm::reclaim) struct ReadsUnderWay {
    count: u32,
    /// The disk of the last that began.
    disk: Option<&'static dyn Disk>,
}

impl core::fmt::Debug for ReadsUnderWay {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReadsUnderWay").field("count", &self.count).finish_non_exhaustive()
    }
}

impl ReadsUnderWay {
    pub(in crate::mm::reclaim) const NONE: Self = Self { count: 0, disk: None };
}

/// A read, from before it begins until its frames are installed.
#[derive(Debug)]
#[must_use]
pub(crate) struct ReadUnderWay(());

impl ReadUnderWay {
    /// Notes that a read of `disk` begins.
    pub(crate) fn begin(disk: &'static dyn Disk) -> Self {
        let reads = &mut RECLAIMER.lock().reads;
        reads.count += 1;
        reads.disk = Some(disk);
        Self(())
    }
}

impl Drop for ReadUnderWay {
    fn drop(&mut self) {
        RECLAIMER.lock().reads.count -= 1;
    }
}

/// Waits, for a short time at most, until a read of another thread may have ended. Returns `false`
/// when there is none, or upcalls are masked.
pub(crate) fn wait_for_reads() -> bool {
    if cpu::is_masked() {
        return false;
    }
    let disk = {
        let reads = &RECLAIMER.lock().reads;
        reads.disk.filter(|_| reads.count > 0)
    };
    let Some(disk) = disk else { return false };
    disk.wait_for_room();
    true
}
