//! What the working set's thread tells the balloon's: that it is short of memory, and that it has
//! ended.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{Event, Instant};

/// The needs of this application.
pub(crate) static NEEDS: Needs =
    Needs { wanted: AtomicU64::new(0), has_ended: AtomicBool::new(false), news: Event::new() };

/// Needs, shared by both threads.
#[derive(Debug)]
pub(crate) struct Needs {
    /// In frames.
    wanted: AtomicU64,
    has_ended: AtomicBool,
    news: Event,
}

impl Needs {
    /// So many frames more are wanted than there are, or none any more.
    pub(crate) fn want(&self, frames: FrameCount) {
        if self.wanted.swap(frames.0, Ordering::Relaxed) != frames.0 {
            self.news.signal();
        }
    }

    /// Frames that are wanted.
    pub(crate) fn wanted(&self) -> FrameCount {
        FrameCount(self.wanted.load(Ordering::Relaxed))
    }

    /// The work is done.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.news.signal();
    }

    /// Whether the work is done.
    pub(crate) fn have_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Waits for news, at most until the given moment.
    pub(crate) fn wait(&self, until: Instant) {
        self.news.wait(Some(until));
    }
}
