//! The background reclaimer: a thread that frees frames before other threads have to wait for them.
//!
//! It is woken when free frames fall below the low watermark, and evicts until the high one is
//! reached. While enough frames are free, it checks once a second which tables of 4 KiB pages can
//! become huge pages, and visits pages of files that were read in that time. It also samples which
//! memory is in use ([`crate::mm::activity`]). Memory management wakes it through
//! [`crate::mm::background`], as it knows nothing of threads.

use core::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::threads::Wait;
use aerostat_abi::units::FrameCount;

use crate::config::{ACTIVITY_PERIOD_NS, COLLAPSE_PERIOD_NS, FIRST_VISIT_DELAY_NS, VAIN_RECLAIM_PAUSE_NS};
use crate::mm::FRAMES;
use crate::mm::activity::Sampler;
use crate::mm::background::{self, Background};
use crate::mm::compaction::{self, collapse};
use crate::mm::reclaim::{first_visits, reclaim_in_background};
use crate::mm::shortage::{self, Cause};
use crate::mm::slice::Slice;
use crate::thread::{self, Event, Priority, SpawnError};
use crate::time::Instant;

static WAKE: Event = Event::of(Wait::Work);
/// Whether the thread has been woken and has not yet begun to check why.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// The reclaimer's thread as memory management sees it.
struct Reclaimer;

impl Background for Reclaimer {
    fn wake(&self) {
        if !IS_WOKEN.swap(true, Ordering::Relaxed) {
            WAKE.signal();
        }
    }

    fn rest(&self) {
        thread::rest();
    }
}

/// Starts the thread.
///
/// # Errors
/// [`SpawnError`].
pub(crate) fn start() -> Result<(), SpawnError> {
    background::set(&Reclaimer);
    thread::spawn_entry("reclaim", Priority::Kernel, run, 0).map(drop)
}

extern "C" fn run(_: u64) {
    let (mut next_collapse, mut next_visits): (Option<Instant>, Option<Instant>) = (None, None);
    let mut sampler = Sampler::new();
    let mut next_sample = Instant::now().after(ACTIVITY_PERIOD_NS);
    loop {
        WAKE.wait([next_collapse, next_visits, Some(next_sample)].into_iter().flatten().min());
        // Before the check: whatever changes from here on wakes the thread again.
        IS_WOKEN.store(false, Ordering::Relaxed);
        if FRAMES.is_short() {
            shortage::announce(Cause::FewFree);
        }
        let missing = FRAMES.missing_to_high();
        if missing > FrameCount::ZERO {
            if reclaim_in_background(missing) == FrameCount::ZERO {
                thread::sleep_until(Instant::now().after(VAIN_RECLAIM_PAUSE_NS));
            }
            continue;
        }
        if next_collapse.is_none_or(|moment| Instant::now() >= moment) {
            next_collapse = collapse_tables().then(|| Instant::now().after(COLLAPSE_PERIOD_NS));
        }
        if Instant::now() >= next_sample {
            let mut slice = Slice::begin();
            let period_ns = sampler.next_period(|| slice.rest_if_over());
            next_sample = Instant::now().after(period_ns);
        }
        if next_visits.is_some_and(|moment| Instant::now() >= moment) {
            visit_new_pages();
            next_visits = None;
        }
        if next_visits.is_none() && first_visits::are_due() {
            next_visits = Some(Instant::now().after(FIRST_VISIT_DELAY_NS));
        }
    }
}

fn visit_new_pages() {
    let mut slice = Slice::begin();
    first_visits::visit(|| slice.rest_if_over());
}

/// Collapses the tables that can become huge pages now. Returns whether others are left.
fn collapse_tables() -> bool {
    let mut slice = Slice::begin();
    let scan = collapse::collapse_tables(|| slice.rest_if_over());
    if scan.waiting > 0 {
        let (whole, occupancy) = FRAMES.huge_frames();
        if occupancy.is_worth_it(whole, scan.waiting) {
            compaction::compact(scan.waiting, || slice.rest_if_over());
        }
    }
    scan.tables > scan.collapsed
}
