//! What the working set's thread tells the balloon's thread: how much memory it waits for, and that
//! it has ended.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{Event, Instant};

/// The needs of this application.
pub(crate) static NEEDS: Needs =
    Needs { wanted: AtomicU64::new(0), has_ended: AtomicBool::new(false), changed: Event::new() };

/// The needs of the working set.
#[derive(Debug)]
pub(crate) struct Needs {
    /// Frames that the working set waits for.
    wanted: AtomicU64,
    has_ended: AtomicBool,
    /// Wakes the balloon's thread.
    changed: Event,
}

impl Needs {
    /// Sets the number of frames that the working set waits for.
    pub(crate) fn want(&self, frames: FrameCount) {
        if self.wanted.swap(frames.0, Ordering::Relaxed) != frames.0 {
            self.changed.signal();
        }
    }

    /// Returns the number of frames that the working set waits for.
    pub(crate) fn wanted(&self) -> FrameCount {
        FrameCount(self.wanted.load(Ordering::Relaxed))
    }

    /// Notes that the working set has ended.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.changed.signal();
    }

    /// Returns whether the working set has ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Waits for a change, at most until the given time.
    pub(crate) fn wait(&self, until: Instant) {
        self.changed.wait(Some(until));
    }
}
