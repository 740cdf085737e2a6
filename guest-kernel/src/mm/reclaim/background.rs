//! The reclaimer's thread: makes frames free before somebody has to wait for them, and, while there
//! are enough, looks once a second which tables of pages could be huge pages. Without such tables
//! it sleeps until it is woken.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::units::FrameCount;

use super::reclaim_ahead;
use crate::config::{COLLAPSE_PERIOD_NS, VAIN_RECLAIM_PAUSE_NS};
use crate::mm::FRAMES;
use crate::mm::compaction::{self, collapse};
use crate::mm::shortage::{self, Cause};
use crate::mm::slice::Slice;
use crate::thread::{self, Event, Priority, SpawnError};
use crate::time::Instant;

static WAKE: Event = Event::new();
/// The thread has been woken and not looked yet.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// Starts the thread.
///
/// # Errors
/// [`SpawnError`].
pub(crate) fn start() -> Result<(), SpawnError> {
    thread::spawn_entry("reclaim", Priority::Kernel, run, 0).map(drop)
}

/// Free frames have become few, or there is a table of pages to look after.
pub(super) fn wake() {
    if !IS_WOKEN.swap(true, Ordering::Relaxed) {
        WAKE.signal();
    }
}

extern "C" fn run(_: u64) {
    let mut next_round = None;
    loop {
        WAKE.wait(next_round);
        IS_WOKEN.store(false, Ordering::Relaxed); // before the look: what happens from here on wakes the thread again
        if FRAMES.is_short() {
            shortage::announce(Cause::FewFree);
        }
        let missing = FRAMES.missing_to_high();
        if missing > FrameCount::ZERO {
            if reclaim_ahead(missing) == FrameCount::ZERO {
                thread::sleep_until(Instant::now().after(VAIN_RECLAIM_PAUSE_NS));
            }
        } else if next_round.is_none_or(|moment| Instant::now() >= moment) {
            next_round = collapse_tables().then(|| Instant::now().after(COLLAPSE_PERIOD_NS));
        }
    }
}

/// Says whether there are tables left to look at.
fn collapse_tables() -> bool {
    let mut slice = Slice::begin();
    let round = collapse::run_round(|| slice.rest_if_over());
    if round.waiting > 0 {
        let (whole, occupancy) = FRAMES.huge_frames();
        if occupancy.is_worth_it(whole, round.waiting) {
            compaction::compact(round.waiting, || slice.rest_if_over());
        }
    }
    round.tables > round.collapsed
}
