//! What memory management needs from the layers above it: a thread that works in the background,
//! and a pause in which other threads run.
//!
//! The implementation is set once, by the background reclaimer ([`crate::background`]). Until then,
//! and in tests on the host, both calls do nothing.

use spin::Once;

/// The background reclaimer and the scheduler, as memory management sees them.
pub(crate) trait Background: Sync {
    /// Wakes the background reclaimer: free frames have become few, or a slot has got a table of
    /// pages.
    fn wake(&self);
    /// Lets other threads run for a moment, if any of them could. Called with no lock held.
    fn rest(&self);
}

static BACKGROUND: Once<&'static dyn Background> = Once::new();

/// Sets the implementation.
pub(crate) fn set(background: &'static dyn Background) {
    BACKGROUND.call_once(|| background);
}

/// Calls [`Background::wake`].
pub(super) fn wake() {
    if let Some(background) = BACKGROUND.get() {
        background.wake();
    }
}

/// Calls [`Background::rest`].
pub(super) fn rest() {
    if let Some(background) = BACKGROUND.get() {
        background.rest();
    }
}
