//! Switches reclaim on: for anonymous memory when the guest has swap, for files when one is mapped.

use aerostat_abi::units::FrameCount;
use aerostat_reclaim_policy::Name;

use super::RECLAIMER;
use super::scan::hand::Hand;
use super::swap::disk::Disk;
use super::swap::slot_map::SlotMap;
use super::swap::swap_disk::SwapDisk;
use crate::mm::FRAMES;

/// What a guest may swap to.
pub(crate) struct Swap {
    pub(crate) policy: Name,
    /// So much beyond its memory may be committed with nothing but the compressed pool behind it:
    /// whoever grants that knows that the data compresses.
    pub(crate) compressed: FrameCount,
    /// A disk, with its slots.
    pub(crate) disk: Option<(&'static dyn Disk, SlotMap)>,
}

/// Switches reclaim of anonymous memory on; to be called once, before memory runs short.
pub(crate) fn start(swap: Swap) {
    let Swap { policy, compressed, disk } = swap;
    let mut headroom = compressed;
    {
        let mut reclaimer = RECLAIMER.lock();
        reclaimer.anonymous = Some(Hand::new(policy));
        if let Some(disk) = disk.and_then(|(disk, slots)| SwapDisk::new(disk, slots)) {
            headroom = headroom.saturating_add(FrameCount(disk.slots.capacity() as u64));
            reclaimer.swap_disk = Some(disk);
        }
    }
    FRAMES.add_headroom(headroom);
    FRAMES.begin_reclaim();
}

/// Switches reclaim of files on.
pub(crate) fn start_dropping_files(policy: Name) {
    RECLAIMER.lock().files.get_or_insert_with(|| Hand::new(policy));
    FRAMES.begin_reclaim();
}
