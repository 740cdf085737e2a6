//! Reclaim attempts: run batches of the reclaimer until enough frames are free.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::RECLAIMER;
use super::scan::efforts::Urgency;
use super::scan::hand::VAIN_SCANS;
use super::swap_in::pack_zspage_on_disk;
use crate::arch::x86_64::cpu;
use crate::config::RECLAIM_STEP;
use crate::mm::slice::Slice;

/// Evicts pages until `wanted` frames have become free, or nothing is left that can be evicted.
/// Returns how many frames have become free, including those that other threads have allocated
/// since. Waits for the disk if need be, unless upcalls are masked.
pub(crate) fn reclaim(wanted: FrameCount) -> FrameCount {
    attempt(Urgency::Direct, Wanted::exactly(wanted))
}

/// Does the same for a caller that no thread of the application waits for: it rests between
/// batches.
pub(crate) fn reclaim_in_background(wanted: FrameCount) -> FrameCount {
    attempt(Urgency::Background, Wanted::exactly(wanted))
}

/// Does the same for a caller that wants a huge frame: drops as many pages of files at once as one
/// has frames, since that takes little time, and evicts few of the others.
pub(crate) fn reclaim_for_huge_frame() -> FrameCount {
    attempt(Urgency::Background, Wanted { least: RECLAIM_STEP, most: FrameCount(HUGE_FRAMES) })
}

/// How many frames an attempt is to make free.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The attempt ends once there are so many.
    least: FrameCount,
    /// So many are welcome where they come at once.
    most: FrameCount,
}

impl Wanted {
    const fn exactly(frames: FrameCount) -> Self {
        Self { least: frames, most: frames }
    }
}

fn attempt(urgency: Urgency, wanted: Wanted) -> FrameCount {
    let Wanted { least: wanted, most } = wanted;
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
    let mut so_far = FrameCount::ZERO;
    loop {
        let batch = RECLAIMER.lock().run_batch(urgency, most.saturating_sub(so_far));
        if urgency == Urgency::Background {
            slice.rest_if_over();
        }
        so_far = freed();
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
