//! The word that guest and monitor share. This file uses its atomic by name only, so that the test
//! of all interleavings can substitute another type.

use core::sync::atomic::Ordering;

use super::{AtomicU32, HugeFrameState};

/// The word of one huge frame.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct HugeFrameWord(AtomicU32);

/// An offer can't be withdrawn, as the host has reclaimed the huge frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlreadyReclaimed;

impl HugeFrameWord {
    /// Returns the current state.
    #[must_use]
    pub fn load(&self) -> HugeFrameState {
        HugeFrameState(self.0.load(Ordering::Acquire))
    }

    /// Stores a new state of a huge frame that is not offered; only the guest does this. When the
    /// new state is an offer, the monitor sees everything that was done to the frame before.
    pub fn store(&self, state: HugeFrameState) {
        self.0.store(state.0, Ordering::Release);
    }

    /// Withdraws an offer; only the guest does this. The huge frame stays free.
    ///
    /// # Errors
    /// [`AlreadyReclaimed`] when the monitor has reclaimed it.
    pub fn withdraw(&self) -> Result<(), AlreadyReclaimed> {
        let offered = self.load();
        if !offered.is_offered() {
            return Err(AlreadyReclaimed); // only the monitor ends an offer without the guest
        }
        self.exchange(offered, offered.without_offer()).map(drop).ok_or(AlreadyReclaimed)
    }

    /// Reclaims the huge frame if it is offered, and returns its state from before; only the
    /// monitor does this. The guest may write anything into the word at any time, so the result
    /// proves nothing about the frame.
    #[must_use]
    pub fn reclaim(&self) -> Option<HugeFrameState> {
        let offered = self.load();
        if !offered.is_offered() {
            return None;
        }
        self.exchange(offered, offered.with_reclaimed())
    }

    /// Replaces `from` by `to`: the compare-and-swap that decides a race.
    fn exchange(&self, from: HugeFrameState, to: HugeFrameState) -> Option<HugeFrameState> {
        let swapped = self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        swapped.ok().map(HugeFrameState)
    }
}
