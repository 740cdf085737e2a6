//! Switches reclaim on: for anonymous memory when the guest has swap, for files when one is mapped.

use aerostat_abi::units::FrameCount;
use aerostat_reclaim_policy::Name;

use super::RECLAIMER;
use super::scan::balance::PageKind;
use super::swap::disk::Disk;
use super::swap::slot_map::SlotMap;
use super::swap::swap_disk::SwapDisk;
use crate::mm::FRAMES;

/// What a guest may swap to.
pub(crate) struct Swap {
    pub(crate) policy: Name,
    /// How many frames beyond memory may be committed with only the compressed pool behind them.
    /// The owner of the guest grants them, and knows that its data compresses.
    pub(crate) compressed: FrameCount,
    /// The swap disk, with its slots.
    pub(crate) disk: Option<(&'static dyn Disk, SlotMap)>,
}

/// Switches reclaim of anonymous memory on. Called once, before memory runs short.
pub(crate) fn start(swap: Swap) {
    let Swap { policy, compressed, disk } = swap;
    let mut headroom = compressed;
    {
        let mut reclaimer = RECLAIMER.lock();
        reclaimer.scanner.start(PageKind::Anonymous, policy);
        if let Some(disk) = disk.and_then(|(disk, slots)| SwapDisk::new(disk, slots)) {
            headroom = headroom.saturating_add(FrameCount(disk.slots.capacity() as u64));
            reclaimer.swap.disk = Some(disk);
        }
    }
    FRAMES.add_headroom(headroom);
    FRAMES.begin_reclaim();
}

/// Switches reclaim of file pages on, if it is not on yet.
pub(crate) fn start_dropping_files(policy: Name) {
    RECLAIMER.lock().scanner.start(PageKind::File, policy);
    FRAMES.begin_reclaim();
}
