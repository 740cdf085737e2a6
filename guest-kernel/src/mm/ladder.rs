//! The ladder: where memory comes from when an application asks for it, one step after the other, in one function.
//!
//! Free frames, then the balloon; reclaim will stand between the two. What the last step can't give is a failed allocation: never
//! a hang, never a fault that can't be resolved.

use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use spin::Once;

use super::{FRAMES, OutOfMemory};
use crate::time::Instant;

/// Whoever can make the host give memory back: the balloon driver.
pub(crate) trait Deflator: Sync {
    /// Tells the host that somebody waits for `wanted` frames, and waits until some may have become free; `false` when there is no
    /// hope left, as the balloon does not even hold the `missing` ones. `patience` is the moment at which an allocation gives up: `None` in its first call, for the deflator to set.
    fn wait_for(&self, wanted: FrameCount, missing: FrameCount, patience: &mut Option<Instant>) -> bool;
    /// Frames have become free inside the guest.
    fn memory_came(&self);
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
    let mut patience = None;
    loop {
        let Err(missing) = FRAMES.lock().promise(frames) else { return Ok(()) };
        if !DEFLATOR.get().is_some_and(|deflator| deflator.wait_for(frames, missing, &mut patience)) {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            return Err(OutOfMemory);
        }
    }
}
