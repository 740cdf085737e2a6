//! The ladder: where memory comes from, one step after the other, in one place.
//!
//! 1. Free frames.
//! 2. The host, for a moment: memory that it has to spare costs less than anything this guest could do.
//! 3. Eviction of cold pages.
//! 4. The host, for longer: it may have to take memory from somebody else first.
//! 5. A failed allocation: never a hang, never a fault that can't be resolved.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use spin::Once;

use super::block::{Block, BlockSize};
use super::frame_allocator::Purpose;
use super::{FRAMES, OutOfMemory, reclaim};
use crate::config::{DEFLATE_WAIT_NS, RECLAIM_STEP, SHORT_DEFLATE_WAIT_NS};
use crate::time::Instant;

/// Whoever can make the host give memory back: the balloon driver.
pub(crate) trait Deflator: Sync {
    /// Tells the host that somebody waits for `wanted` frames, and waits until some may have become free; `false` when there is no
    /// hope left, as the balloon does not even hold the `missing` ones.
    fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool;
    /// Frames have become free inside the guest.
    fn memory_came(&self);
}

/// How long somebody waits for the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// In all.
    pub(crate) nanoseconds: u64,
    /// When it ends; set in the first wait.
    pub(crate) end: Option<Instant>,
}

static DEFLATOR: Once<&'static dyn Deflator> = Once::new();
static FAILURES: AtomicU64 = AtomicU64::new(0);

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

/// Allocations that failed since boot.
pub(crate) fn failures() -> u64 {
    FAILURES.load(Ordering::Relaxed)
}

/// Promises `frames` frames, climbing as far as it takes.
///
/// # Errors
/// [`OutOfMemory`] when the last step had nothing left.
pub(crate) fn promise(frames: FrameCount) -> Result<(), OutOfMemory> {
    climb(frames, || FRAMES.lock().promise(frames))
}

/// A frame for an evicted page that is needed again.
///
/// # Errors
/// [`OutOfMemory`] when the last step had nothing left.
pub(crate) fn frame_for_restore() -> Result<Block, OutOfMemory> {
    climb(FrameCount(1), || FRAMES.lock().allocate(BlockSize::Frame, Purpose::Restore).ok_or(FrameCount(1)))
}

/// Tries to get `wanted` frames until it succeeds or the ladder ends. A failed attempt says how many are missing.
fn climb<T>(wanted: FrameCount, mut attempt: impl FnMut() -> Result<T, FrameCount>) -> Result<T, OutOfMemory> {
    let mut short = Patience { nanoseconds: SHORT_DEFLATE_WAIT_NS, end: None };
    let mut long = Patience { nanoseconds: DEFLATE_WAIT_NS, end: None };
    loop {
        let missing = match attempt() {
            Ok(success) => return Ok(success),
            Err(missing) => missing,
        };
        let goes_on = wait_for_host(wanted, missing, &mut short)
            || reclaim::reclaim(missing.max(RECLAIM_STEP)) > FrameCount::ZERO
            || wait_for_host(wanted, missing, &mut long);
        if !goes_on {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
    }
}

fn wait_for_host(wanted: FrameCount, missing: FrameCount, patience: &mut Patience) -> bool {
    // Whoever holds a spin lock can't wait: the host's answer would need threads to run.
    !crate::cpu::is_masked() && DEFLATOR.get().is_some_and(|deflator| deflator.wait_for(wanted, missing, patience))
}
