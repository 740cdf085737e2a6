//! All of reclaim on a machine of ordinary memory, without a disk and with one that fails on
//! request.

mod corrupt_disk;
mod eviction;
mod full_disk;
mod sparse_zspages;
pub(in crate::mm) mod swap_disk;

use aerostat_abi::units::FrameCount;

use super::{RECLAIMER, Reclaimer};

/// Forgets everything: each test machine begins without swap.
pub(in crate::mm) fn restart() {
    let Reclaimer { swap_in, .. } = core::mem::replace(&mut *RECLAIMER.lock(), Reclaimer::new());
    swap_in.leak(); // its frames went with their machine
}

/// Returns how many frames that hold commit charges are read ahead.
pub(in crate::mm) fn committed_ahead() -> FrameCount {
    FrameCount(RECLAIMER.lock().swap_in.committed_ahead())
}
