//! Reclaim attempts: run batches of the reclaimer until enough frames are free.

use aerostat_abi::units::FrameCount;

use super::RECLAIMER;
use super::scan::efforts::Urgency;
use super::scan::hand::VAIN_SCANS;
use super::swap_in::pack_zspage_on_disk;
use crate::arch::x86_64::cpu;
use crate::mm::slice::Slice;

/// Evicts pages until `wanted` frames have become free, or nothing is left that can be evicted.
/// Returns how many frames have become free, including those that other threads have allocated
/// since. Waits for the disk if need be, unless upcalls are masked.
pub(crate) fn reclaim(wanted: FrameCount) -> FrameCount {
    attempt(Urgency::Direct, wanted)
}

/// Does the same for a caller that no thread of the application waits for: it rests between
/// batches.
pub(crate) fn reclaim_in_background(wanted: FrameCount) -> FrameCount {
    attempt(Urgency::Background, wanted)
}

fn attempt(urgency: Urgency, wanted: FrameCount) -> FrameCount {
    let hands = RECLAIMER.lock().scanner.hands();
    if hands == 0 {
        return FrameCount::ZERO;
    }
    // The frames freed are counted, not the free frames: other threads allocate meanwhile.
    let before = RECLAIMER.lock().made_free();
    RECLAIMER.lock().swap_in.age_read_ahead();
    let freed = || FrameCount(RECLAIMER.lock().made_free().saturating_sub(before));
    let mut scans = 0;
    let mut slice = Slice::begin();
    loop {
        let batch = RECLAIMER.lock().run_batch(urgency);
        if urgency == Urgency::Background {
            slice.rest_if_over();
        }
        let so_far = freed();
        if so_far >= wanted {
            return so_far;
        }
        scans += u32::from(batch.has_ended_scan);
        // After so many scans every page has been offered for eviction, and huge pages have been
        // split.
        let is_vain = scans > hands * VAIN_SCANS;
        if is_vain && so_far == FrameCount::ZERO {
            // Commit charges rest on every frame of the compressed pool, not only on those beyond
            // its bound.
            RECLAIMER.lock().swap.write_back(wanted);
        }
        let is_enough = so_far.0 + batch.leaving as u64 >= wanted.0;
        // Only for a thread that needs the frames: packing takes them from the last reserve.
        let may_pack = urgency == Urgency::Direct && !is_enough;
        if (batch.lacks_slot || is_vain) && may_pack && pack_zspage_on_disk() {
            scans = 0; // there are free slots now
            continue;
        }
        if (is_vain || is_enough || batch.is_disk_busy) && !wait_for_disk() {
            return freed();
        }
    }
}

/// Submits what is staged for the disk, and waits until a write has ended. Returns `false` when
/// nothing is being written, or upcalls are masked.
pub(super) fn wait_for_disk() -> bool {
    let (disk, ticket) = {
        let mut reclaimer = RECLAIMER.lock();
        reclaimer.finish_transfers();
        let Some(swap) = &mut reclaimer.swap.disk else { return false };
        swap.submit();
        let (disk, write) = (swap.disk, swap.write_under_way());
        if swap.is_writing() {
            (disk, write)
        } else {
            reclaimer.unstage();
            // The frames that are being read into are the last that can be had.
            let before = reclaimer.swap_in.dropped_frames();
            let ticket = reclaimer.swap_in.drop_read_ahead();
            if ticket.is_none() {
                return reclaimer.swap_in.dropped_frames() > before;
            }
            (disk, ticket)
        }
    };
    if cpu::is_masked() {
        return false;
    }
    match ticket {
        Some(ticket) => disk.wait(ticket),
        None => disk.wait_for_room(), // reads fill its queue
    }
    RECLAIMER.lock().finish_transfers();
    true
}
