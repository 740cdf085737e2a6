//! The allocation slow path: the steps that are tried, one after the other, when no memory is free.
//!
//! A *commit charge* ([`charge_commit`]) only concerns accounting. It can be made from:
//! 1. free frames and swap headroom;
//! 2. what the application frees when it is told that memory is short ([`shortage`]);
//! 3. the host, with a longer wait, because the host may have to take memory from another guest
//!    first;
//! 4. otherwise the allocation fails: never a hang, never a fault that can't be resolved.
//!
//! A *frame* that was committed ([`frame_for_fault`]) is taken from:
//! 1. the free frames;
//! 2. the application, if it frees some when it is told;
//! 3. the host, with a short wait, unless a short wait has just failed: memory that the host can
//!    spare is cheaper than anything that this guest could do;
//! 4. eviction of cold pages;
//! 5. the host, with a longer wait.
//!
//! These steps find a frame as long as swap can hold what was committed on it.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use spin::Once;

use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::shortage::{self, Cause};
use super::{FRAMES, background, pressure, reclaim};
use crate::config::{DEFLATE_WAIT_NS, HOST_REFUSAL_NS, RECLAIM_STEP, SHORT_DEFLATE_WAIT_NS};
use crate::patience::Patience;
use crate::time::Instant;

/// The error of an allocation for which every step of the slow path found too little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of memory")
    }
}

/// The part that can get memory back from the host: the balloon driver.
pub(crate) trait Deflator: Sync {
    /// Tells the host that a thread waits for `wanted` frames, and waits until some may have become
    /// free or the time limit is reached. Returns `false` when waiting longer is useless: the limit
    /// is reached, or the balloon holds fewer than the `missing` frames.
    fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool;
    /// Wakes the threads that wait, because frames have become free inside the guest.
    fn frames_freed(&self);
}

static DEFLATOR: Once<&'static dyn Deflator> = Once::new();
static STALLS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since boot before which a short wait for the host is not worth trying.
static HOST_REFUSES_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Frames deflated since boot. While the number grows, waiting for the host is worth it.
static DEFLATED: AtomicU64 = AtomicU64::new(0);

/// Sets the balloon driver to ask.
pub(crate) fn set_deflator(deflator: &'static dyn Deflator) {
    DEFLATOR.call_once(|| deflator);
}

/// Wakes the threads that wait for memory, because frames have become free: they try again.
pub(crate) fn frames_freed() {
    if let Some(deflator) = DEFLATOR.get() {
        deflator.frames_freed();
    }
}

/// Commit charges and frames, since boot, that took the slow path, and those that it failed to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlowPathStatistics {
    pub(crate) stalls: u64,
    pub(crate) failures: u64,
}

/// Returns the current metrics.
pub(crate) fn statistics() -> SlowPathStatistics {
    SlowPathStatistics { stalls: STALLS.load(Ordering::Relaxed), failures: FAILURES.load(Ordering::Relaxed) }
}

/// Counts a request that can't be met at once.
fn stall() -> pressure::Stall {
    STALLS.fetch_add(1, Ordering::Relaxed);
    pressure::Stall::begin()
}

/// Charges `frames` frames to the commit, with as many steps of the slow path as it takes.
///
/// # Errors
/// [`OutOfMemory`] when the last step had nothing left.
pub(crate) fn charge_commit(frames: FrameCount) -> Result<(), OutOfMemory> {
    if FRAMES.charge_commit(frames).is_ok() {
        return Ok(());
    }
    let _stall = stall();
    shortage::announce(Cause::FewFree);
    let mut patience = Patience::new(DEFLATE_WAIT_NS);
    let before = DEFLATED.load(Ordering::Relaxed);
    loop {
        let Err(missing) = FRAMES.charge_commit(frames) else { return Ok(()) };
        if !wait_for_host(frames, missing, &mut patience) {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            report_end(&patience, frames, missing, before);
            return Err(OutOfMemory);
        }
    }
}

/// Allocates a frame that was committed, or one to restore a page into.
///
/// # Errors
/// [`OutOfMemory`] when the last step had nothing left.
pub(crate) fn frame_for_fault(purpose: Purpose) -> Result<Block, OutOfMemory> {
    let free = FRAMES.allocate(BlockSize::Frame, purpose);
    let block = match free {
        Some(block) => block,
        None => allocate_slow(purpose)?,
    };
    if FRAMES.is_short() {
        background::wake();
    }
    Ok(block)
}

fn allocate_slow(purpose: Purpose) -> Result<Block, OutOfMemory> {
    let _stall = stall();
    shortage::announce(Cause::FewFree);
    let mut short = Patience::new(SHORT_DEFLATE_WAIT_NS);
    let mut long = Patience::new(DEFLATE_WAIT_NS);
    let before = DEFLATED.load(Ordering::Relaxed);
    loop {
        if let Some(block) = FRAMES.allocate(BlockSize::Frame, purpose) {
            return Ok(block);
        }
        let goes_on = ask_host_briefly(&mut short)
            || reclaim::reclaim(RECLAIM_STEP) > FrameCount::ZERO
            || wait_for_host(RECLAIM_STEP, FrameCount(1), &mut long);
        if !goes_on {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            report_end(&long, FrameCount(1), FrameCount(1), before);
            return Err(OutOfMemory);
        }
    }
}

/// Logs how much was deflated during a wait that ended at its limit.
fn report_end(patience: &Patience, wanted: FrameCount, missing: FrameCount, deflated_before: u64) {
    if patience.is_over() {
        let deflated = FrameCount(DEFLATED.load(Ordering::Relaxed) - deflated_before);
        let seconds = DEFLATE_WAIT_NS / 1_000_000_000;
        log::warn!(
            "memory: {wanted} were asked for; the host gave {deflated} meanwhile and none for {seconds} s, {missing} are missing"
        );
    }
}

/// Waits a short time for the host, unless it is known to have nothing to spare.
fn ask_host_briefly(patience: &mut Patience) -> bool {
    let now = Instant::now().as_nanos();
    if now < HOST_REFUSES_UNTIL.load(Ordering::Relaxed) {
        return false;
    }
    let goes_on = wait_for_host(RECLAIM_STEP, FrameCount(1), patience);
    if !goes_on {
        HOST_REFUSES_UNTIL.store(now + HOST_REFUSAL_NS, Ordering::Relaxed);
    }
    goes_on
}

/// Notes that `frames` were deflated: the host may have more.
pub(crate) fn note_deflated(frames: FrameCount) {
    DEFLATED.fetch_add(frames.0, Ordering::Relaxed);
    HOST_REFUSES_UNTIL.store(0, Ordering::Relaxed);
}

fn wait_for_host(wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool {
    patience.observe(DEFLATED.load(Ordering::Relaxed));
    // A caller that holds a spin lock can't wait: other threads must run for the host's answer to
    // arrive.
    !crate::arch::x86_64::cpu::is_masked()
        && DEFLATOR.get().is_some_and(|deflator| deflator.wait_for(wanted, missing, patience))
}
