//! The word that guest and monitor share. The file knows no more of its atomic than the name, so
//! that the test of all interleavings can put another in its place.

use core::sync::atomic::Ordering;

use super::{AtomicU32, HugeFrameState};

/// The word of one huge frame.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct HugeFrameWord(AtomicU32);

/// The monitor was faster: the huge frame is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken;

impl HugeFrameWord {
    /// What the word says now.
    #[must_use]
    pub fn load(&self) -> HugeFrameState {
        HugeFrameState(self.0.load(Ordering::Acquire))
    }

    /// The guest's: says something else about a huge frame that is not offered. An offer lets the
    /// monitor see all that was done to the frame before.
    pub fn store(&self, state: HugeFrameState) {
        self.0.store(state.0, Ordering::Release);
    }

    /// The guest's: withdraws an offer; the huge frame is then as free as before.
    ///
    /// # Errors
    /// [`Taken`] when the monitor has it.
    pub fn withdraw(&self) -> Result<(), Taken> {
        let offered = self.load();
        if !offered.is_offered() {
            return Err(Taken); // nobody but the monitor ends an offer behind the guest's back
        }
        self.exchange(offered, offered.without_offer()).map(drop).ok_or(Taken)
    }

    /// The monitor's: takes the huge frame if it is offered, and says what its word said before.
    /// The guest may write anything there at any time, so this proves nothing about the frame.
    #[must_use]
    pub fn take(&self) -> Option<HugeFrameState> {
        let offered = self.load();
        if !offered.is_offered() {
            return None;
        }
        self.exchange(offered, offered.with_reclaimed())
    }

    /// The one compare-and-swap that settles a race.
    fn exchange(&self, from: HugeFrameState, to: HugeFrameState) -> Option<HugeFrameState> {
        let swapped = self.0.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire);
        swapped.ok().map(HugeFrameState)
    }
}
