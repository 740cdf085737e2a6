//! Slices of background work.
//!
//! Kernel threads run before those of applications, so they have to work in slices: after
//! [`WORK_SLICE_NS`] they rest for a moment, if another thread could run. A thread that reclaims
//! because it needs memory itself has no slices, as it works for itself and in its own time.

use super::background;
use crate::config::WORK_SLICE_NS;
use crate::time::Instant;

#[cfg(test)]
std::thread_local! {
    /// How often a slice was over.
    pub(crate) static CHANCES: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// A stretch of work that no other thread interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    end: Instant,
}

impl Slice {
    /// Begins a slice now.
    pub(crate) fn begin() -> Self {
        Self::beginning(Instant::now())
    }

    fn beginning(now: Instant) -> Self {
        Self { end: now.after(WORK_SLICE_NS) }
    }

    /// Lets other threads run for a moment once the slice is over, and begins the next one. Called
    /// between two pieces of work, with no lock held.
    pub(crate) fn rest_if_over(&mut self) {
        #[cfg(test)]
        CHANCES.set(CHANCES.get() + 1);
        if self.is_over(Instant::now()) {
            background::rest();
            *self = Self::begin();
        }
    }

    fn is_over(self, now: Instant) -> bool {
        now >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::{Slice, WORK_SLICE_NS};
    use crate::time::Instant;

    #[test]
    fn a_slice_ends_after_its_time() {
        let slice = Slice::beginning(Instant::from_nanos(7));
        assert!(!slice.is_over(Instant::from_nanos(6 + WORK_SLICE_NS)));
        assert!(slice.is_over(Instant::from_nanos(7 + WORK_SLICE_NS)));
    }
}
