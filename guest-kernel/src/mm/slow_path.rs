//! The slow path: where memory comes from, one step after the other, in one place.
//!
//! A *commit charge* ([`charge_commit`]) is a matter of accounting:
//! 1. what is free, and what swap can hold;
//! 2. what the application frees when it is told ([`shortage`]);
//! 3. the host, for a while: it may have to take memory from somebody else first;
//! 4. a failed allocation: never a hang, never a fault that can't be resolved.
//!
//! A *frame* that was committed ([`frame_for_fault`]) is found:
//! 1. among the free ones;
//! 2. from the application, if it is told and frees some;
//! 3. at the host's, for a moment, unless it has just been asked in vain: memory that it has to
//!    spare costs less than anything that this guest could do;
//! 4. by eviction of cold pages;
//! 5. at the host's, for longer.
//!
//! There is a frame at the end of the second way, as long as swap keeps what it committed.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use spin::Once;

use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::shortage::{self, Cause};
use super::{FRAMES, OutOfMemory, pressure, reclaim};
use crate::config::{DEFLATE_WAIT_NS, HOST_REFUSAL_NS, RECLAIM_STEP, SHORT_DEFLATE_WAIT_NS};
use crate::patience::Patience;
use crate::time::Instant;

/// Whoever can make the host give memory back: the balloon driver.
pub(crate) trait Deflator: Sync {
    /// Tells the host that somebody waits for `wanted` frames, and waits until some may have become
    /// free, or patience is at its end; `false` when there is no hope left: it is, or the balloon
    /// does not even hold the `missing` ones.
    fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool;
    /// Frames have become free inside the guest.
    fn memory_came(&self);
}

static DEFLATOR: Once<&'static dyn Deflator> = Once::new();
static STALLS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since boot until which it is not worth asking the host briefly.
static HOST_REFUSES_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Frames that the host has given back since boot: as long as some arrive, a wait for the host is
/// not in vain.
static DEFLATED: AtomicU64 = AtomicU64::new(0);

/// Wires the balloon in.
pub(crate) fn set_deflator(deflator: &'static dyn Deflator) {
    DEFLATOR.call_once(|| deflator);
}

/// Lets whoever waits for memory look again.
pub(crate) fn memory_came() {
    if let Some(deflator) = DEFLATOR.get() {
        deflator.memory_came();
    }
}

/// Commit charges and frames that were not to be had at once, and those that were not to be had at
/// all, since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlowPathStatistics {
    pub(crate) stalls: u64,
    pub(crate) failures: u64,
}

/// The metrics now.
pub(crate) fn statistics() -> SlowPathStatistics {
    SlowPathStatistics { stalls: STALLS.load(Ordering::Relaxed), failures: FAILURES.load(Ordering::Relaxed) }
}

/// Somebody can't go on at once.
fn stall() -> pressure::Stall {
    STALLS.fetch_add(1, Ordering::Relaxed);
    pressure::Stall::begin()
}

/// Commit charges `frames` frames, going as far as it takes.
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

/// A frame that was committed, or that brings one back.
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
        reclaim::wake();
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

/// Says in the log how far a wait for the host got that was in vain.
fn report_end(patience: &Patience, wanted: FrameCount, missing: FrameCount, deflated_before: u64) {
    if patience.is_over() {
        let came = FrameCount(DEFLATED.load(Ordering::Relaxed) - deflated_before);
        let seconds = DEFLATE_WAIT_NS / 1_000_000_000;
        log::warn!(
            "memory: {wanted} were asked for; the host gave {came} meanwhile and none for {seconds} s, {missing} are missing"
        );
    }
}

/// Waits for the host for a moment; not while it is known to have nothing to spare.
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

/// The host has given `frames` back: it may have more.
pub(crate) fn host_gave(frames: FrameCount) {
    DEFLATED.fetch_add(frames.0, Ordering::Relaxed);
    HOST_REFUSES_UNTIL.store(0, Ordering::Relaxed);
}

fn wait_for_host(wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool {
    patience.observe(DEFLATED.load(Ordering::Relaxed));
    // Whoever holds a spin lock can't wait: the host's answer would need threads to run.
    !crate::cpu::is_masked() && DEFLATOR.get().is_some_and(|deflator| deflator.wait_for(wanted, missing, patience))
}
