//! The allocation slow path: the steps that are tried, one after the other, when no memory is free.
//!
//! A *commit charge* ([`charge_commit`]) only concerns accounting. It can be made from:
//! 1. free frames and swap headroom;
//! 2. what the application frees when it is told that memory is short ([`shortage`]);
//! 3. the host, with a longer wait, because the host may have to take memory from another guest
//!    first; a host that permits it is not waited for, and the balloon is deflated at once;
//! 4. otherwise the allocation fails: never a hang, never a fault that can't be resolved.
//!
//! A *frame* that was committed ([`frame_for_fault`]) is taken from:
//! 1. the free frames;
//! 2. the application, if it frees some when it is told;
//! 3. the host, with a short wait, unless a short wait has just failed: memory that the host can
//!    spare is cheaper than anything that this guest could do;
//! 4. eviction of cold pages;
//! 5. what other threads are reading or packing, whose frames are the last that can be had;
//! 6. the host, with a longer wait.
//!
//! These steps find a frame as long as swap can hold what was committed on it.
//!
//! A longer wait lasts while there is progress ([`Progress`], [`Patience`]), and its failure says
//! what was missing ([`Shortfall`]).

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use spin::Once;

use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::shortage::{self, Cause};
use super::shortfall::{MemoryState, Progress, Shortfall, Want};
use super::{FRAMES, background, extent, pressure, reclaim};
use crate::config::{DEFLATE_WAIT_NS, FAILURE_LOG_SPACING_NS, HOST_REFUSAL_NS, RECLAIM_STEP, SHORT_DEFLATE_WAIT_NS};
use crate::patience::{Observation, Patience};
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
    /// Tells the host that a thread waits for memory, and waits until some may have become free or
    /// the time limit is reached. Returns `false` when waiting longer is useless: the limit is
    /// reached, or the balloon holds fewer frames than are missing.
    fn wait_for(&self, need: Need, patience: &mut Patience) -> bool;
    /// Wakes the threads that wait, because frames have become free inside the guest.
    fn frames_freed(&self);
    /// Returns the balloon size and the host's target.
    fn balloon_and_target(&self) -> (FrameCount, FrameCount);
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Frames that the thread wants.
    pub(crate) wanted: FrameCount,
    /// Frames without which it can't go on.
    pub(crate) missing: FrameCount,
    pub(crate) resort: Resort,
}

/// What else a thread can try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resort {
    /// It goes on to evict pages.
    First,
    /// Nothing. Where the host permits it, the balloon is deflated whatever the target is.
    Last,
}

static DEFLATOR: Once<&'static dyn Deflator> = Once::new();
static STALLS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since boot before which a short wait for the host is not worth trying.
static HOST_REFUSES_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds since boot before which a failure without a wait is not logged.
static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
/// Frames deflated since boot.
static RECEIVED: AtomicU64 = AtomicU64::new(0);
/// Frames by which the host has raised its targets since boot.
static RAISED: AtomicU64 = AtomicU64::new(0);
/// Frames that the application has freed since boot.
static FREED: AtomicU64 = AtomicU64::new(0);

/// Sets the balloon driver to ask.
pub(crate) fn set_deflator(deflator: &'static dyn Deflator) {
    DEFLATOR.call_once(|| deflator);
}

/// Wakes the threads that wait for memory, because `frames` frames have become free: they try
/// again.
pub(crate) fn frames_freed(frames: FrameCount) {
    FREED.fetch_add(frames.0, Ordering::Relaxed);
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
    let mut wait = Wait::begin(Want::Commit, frames);
    loop {
        let Err(missing) = FRAMES.charge_commit(frames) else { return Ok(()) };
        if !wait.wait_for_host(missing) {
            return Err(wait.fail(missing));
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
    let mut wait = Wait::begin(Want::Frame, RECLAIM_STEP);
    loop {
        if let Some(block) = FRAMES.allocate(BlockSize::Frame, purpose) {
            return Ok(block);
        }
        let goes_on = ask_host_briefly(&mut short)
            || wait.reclaim(RECLAIM_STEP)
            || wait.wait_for_reads()
            || wait.wait_for_host(FrameCount(1));
        if !goes_on {
            return Err(wait.fail(FrameCount(1)));
        }
    }
}

/// A thread's wait for memory: it lasts while there is progress.
struct Wait {
    want: Want,
    wanted: FrameCount,
    patience: Patience,
    /// What had moved when the wait began.
    before: Progress,
}

impl Wait {
    fn begin(want: Want, wanted: FrameCount) -> Self {
        Self { want, wanted, patience: Patience::new(DEFLATE_WAIT_NS), before: progress() }
    }

    /// Waits until the host may have given something. Returns `false` when waiting longer is
    /// useless.
    fn wait_for_host(&mut self, missing: FrameCount) -> bool {
        self.observe(missing);
        wait_for_host(Need { wanted: self.wanted, missing, resort: Resort::Last }, &mut self.patience)
    }

    /// Evicts pages. Returns `false` when there is nothing to evict, or others take all that
    /// becomes free.
    fn reclaim(&mut self, wanted: FrameCount) -> bool {
        reclaim::reclaim(wanted) > FrameCount::ZERO && self.goes_on()
    }

    /// Waits until a read of another thread may have ended: its frames are in use until then, and
    /// can be evicted afterwards. Returns `false` when there is none.
    fn wait_for_reads(&mut self) -> bool {
        self.goes_on() && reclaim::wait_for_reads()
    }

    fn goes_on(&mut self) -> bool {
        self.observe(FrameCount(1));
        self.patience.charge(Instant::now()).is_some()
    }

    fn observe(&mut self, missing: FrameCount) {
        self.patience.observe(Observation { moved: progress().towards(self.want), missing: missing.0 });
    }

    /// Counts the failure and logs it, with a distance if the thread has not waited.
    fn fail(self, missing: FrameCount) -> OutOfMemory {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now().as_nanos();
        if self.patience.waited_ns() > 0 || now >= QUIET_UNTIL.load(Ordering::Relaxed) {
            QUIET_UNTIL.store(now + FAILURE_LOG_SPACING_NS, Ordering::Relaxed);
            let shortfall = Shortfall {
                want: self.want,
                wanted: self.wanted,
                missing,
                waited_ns: self.patience.waited_ns(),
                is_in_vain: self.patience.is_in_vain(),
                moved: progress().since(&self.before),
            };
            log::warn!("memory: {shortfall}");
            log::warn!("memory: {}", state());
        }
        OutOfMemory
    }
}

/// Returns what has moved since boot.
fn progress() -> Progress {
    let count = |counter: &AtomicU64| FrameCount(counter.load(Ordering::Relaxed));
    let (evicted, written) = reclaim::evicted_and_written();
    Progress { received: count(&RECEIVED), raised: count(&RAISED), freed: count(&FREED), evicted, written }
}

/// Returns the guest's memory as it is now.
fn state() -> MemoryState {
    let machine = extent::total_frames();
    let (balloon, target) =
        DEFLATOR.get().map_or((FrameCount::ZERO, machine), |deflator| deflator.balloon_and_target());
    let swap = reclaim::statistics().disk;
    MemoryState {
        free: FRAMES.statistics().free,
        size: machine.saturating_sub(balloon).saturating_sub(FRAMES.reclaimed_by_host()),
        target: target.min(machine),
        machine,
        swap_room: FrameCount(swap.slots.saturating_sub(swap.used_slots)),
        leaving: reclaim::leaving(),
    }
}

/// Waits a short time for the host, unless it is known to have nothing to spare.
fn ask_host_briefly(patience: &mut Patience) -> bool {
    let now = Instant::now().as_nanos();
    patience.observe(Observation { moved: RECEIVED.load(Ordering::Relaxed), missing: 1 });
    if now < HOST_REFUSES_UNTIL.load(Ordering::Relaxed) {
        return false;
    }
    let goes_on = wait_for_host(Need { wanted: RECLAIM_STEP, missing: FrameCount(1), resort: Resort::First }, patience);
    if !goes_on {
        HOST_REFUSES_UNTIL.store(now + HOST_REFUSAL_NS, Ordering::Relaxed);
    }
    goes_on
}

/// Notes that `frames` were deflated: the host may have more.
pub(crate) fn note_deflated(frames: FrameCount) {
    RECEIVED.fetch_add(frames.0, Ordering::Relaxed);
    HOST_REFUSES_UNTIL.store(0, Ordering::Relaxed);
}

/// Notes that the host has raised its target by `frames`.
pub(crate) fn note_raised(frames: FrameCount) {
    RAISED.fetch_add(frames.0, Ordering::Relaxed);
}

fn wait_for_host(need: Need, patience: &mut Patience) -> bool {
    // A caller that holds a spin lock can't wait: other threads must run for the host's answer to
    // arrive.
    !crate::arch::x86_64::cpu::is_masked() && DEFLATOR.get().is_some_and(|deflator| deflator.wait_for(need, patience))
}
