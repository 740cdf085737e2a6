//! The reclaimer's thread: makes frames free before somebody has to wait for them.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::units::FrameCount;

use super::reclaim;
use crate::config::VAIN_RECLAIM_PAUSE_NS;
use crate::mm::FRAMES;
use crate::mm::shortage::{self, Cause};
use crate::thread::{self, Event, Priority, SpawnError};
use crate::time::Instant;

static WAKE: Event = Event::new();
static IS_STARTED: AtomicBool = AtomicBool::new(false);
/// The thread has been woken and not looked yet.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// Starts the thread, unless it runs.
///
/// # Errors
/// [`SpawnError`].
pub(crate) fn start() -> Result<(), SpawnError> {
    if IS_STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    thread::spawn_entry("reclaim", Priority::Kernel, run, 0)
        .map(drop)
        .inspect_err(|_| IS_STARTED.store(false, Ordering::Relaxed))
}

/// Free frames have become few.
pub(super) fn wake() {
    if !IS_WOKEN.swap(true, Ordering::Relaxed) {
        WAKE.signal();
    }
}

extern "C" fn run(_: u64) {
    loop {
        WAKE.wait(None);
        if FRAMES.lock().is_short() {
            shortage::announce(Cause::FewFree);
        }
        let missing = FRAMES.lock().missing_to_high();
        if missing > FrameCount::ZERO && reclaim(missing) == FrameCount::ZERO {
            thread::sleep_until(Instant::now().after(VAIN_RECLAIM_PAUSE_NS));
        }
        IS_WOKEN.store(false, Ordering::Relaxed);
    }
}
