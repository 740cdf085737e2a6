//! The frame allocator's word for one huge frame: what it says ([`HugeFrameState`]), and how guest
//! and monitor change it ([`HugeFrameWord`]).
//!
//! A guest may share its words with the monitor ([`crate::port::Command::Share`]). It *offers* huge
//! frames that are free and not committed. The monitor may *reclaim* an offered huge frame at any
//! time, without running the guest. The guest may *withdraw* an offer at any time, without telling
//! the monitor. One compare-and-swap decides which of them was first. Only the guest writes words
//! that are not offered. (The idea of a frame allocator that guest and hypervisor share is that of
//! HyperAlloc, Wrenger et al., EuroSys 2025.)
//!
//! | bits  | field                                                                              |
//! |-------|------------------------------------------------------------------------------------|
//! | 0..10 | frames in use, 0 to 512                                                            |
//! | 10    | `WHOLE`: allocated as one huge frame (the count is then 512)                        |
//! | 11    | `BACKED`: some frame was handed out since the host last had the memory              |
//! | 12    | `PINNED`: since it was last wholly free, a frame was handed out that can't be moved |
//! | 13    | `VACATED`: its pages are being moved out; its free frames are allocated last         |
//! | 14    | `OFFERED`: wholly free, and the monitor may reclaim it                              |
//! | 15    | `RECLAIMED`: reclaimed by the host: ballooned, and not yet noted by the guest       |
//!
//! A word of zero means that the huge frame is wholly free and that the host backs none of it. So
//! the state of a new machine needs no initialisation.

mod word;

use core::sync::atomic::AtomicU32;

pub use self::word::{AlreadyReclaimed, HugeFrameWord};

/// The state of a huge frame, as a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugeFrameState(pub u32);

impl HugeFrameState {
    const USED_MASK: u32 = (1 << 10) - 1;
    const WHOLE: u32 = 1 << 10;
    const BACKED: u32 = 1 << 11;
    const PINNED: u32 = 1 << 12;
    const VACATED: u32 = 1 << 13;
    const OFFERED: u32 = 1 << 14;
    const RECLAIMED: u32 = 1 << 15;
    const FULL: u32 = 512;

    /// Returns the number of frames in use, 0 to 512.
    #[must_use]
    pub const fn used(self) -> u32 {
        self.0 & Self::USED_MASK
    }

    /// Returns whether no frame is in use.
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.used() == 0
    }

    /// Returns whether every frame is in use.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.used() == Self::FULL
    }

    /// Returns whether it is allocated as one huge frame.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 & Self::WHOLE != 0
    }

    /// Returns whether the host may back it.
    #[must_use]
    pub const fn is_backed(self) -> bool {
        self.0 & Self::BACKED != 0
    }

    /// Returns whether a frame in use may be one that can't be moved.
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        self.0 & Self::PINNED != 0
    }

    /// Returns whether its pages are being moved out.
    #[must_use]
    pub const fn is_vacated(self) -> bool {
        self.0 & Self::VACATED != 0
    }

    /// Returns whether the monitor may reclaim it.
    #[must_use]
    pub const fn is_offered(self) -> bool {
        self.0 & Self::OFFERED != 0
    }

    /// Returns whether it is reclaimed by the host.
    #[must_use]
    pub const fn is_reclaimed(self) -> bool {
        self.0 & Self::RECLAIMED != 0
    }

    /// Returns the state with an offer to the monitor.
    #[must_use]
    pub const fn with_offer(self) -> Self {
        Self(self.0 | Self::OFFERED)
    }

    /// Returns the state without an offer.
    #[must_use]
    pub const fn without_offer(self) -> Self {
        Self(self.0 & !Self::OFFERED)
    }

    /// Returns the state after the monitor reclaimed the huge frame: the host backs it no more.
    #[must_use]
    pub const fn with_reclaimed(self) -> Self {
        Self(self.0 & !(Self::OFFERED | Self::BACKED) | Self::RECLAIMED)
    }

    /// Returns the state with `used` frames in use, not as one huge frame. With none in use,
    /// nothing is pinned and nothing is left to move.
    #[must_use]
    pub const fn with_used(self, used: u32) -> Self {
        debug_assert!(used <= Self::FULL);
        let kept = if used == 0 { Self::BACKED } else { Self::BACKED | Self::PINNED | Self::VACATED };
        Self(self.0 & kept | used)
    }

    /// Returns the state with a frame in use that can't be moved. Moving the other frames' pages
    /// out would not make the huge frame free.
    #[must_use]
    pub const fn with_pinned(self) -> Self {
        Self((self.0 | Self::PINNED) & !Self::VACATED)
    }

    /// Returns the state of a huge frame whose pages are being moved out.
    #[must_use]
    pub const fn with_vacated(self) -> Self {
        Self(self.0 | Self::VACATED)
    }

    /// Returns the state of a huge frame whose pages stay.
    #[must_use]
    pub const fn without_vacated(self) -> Self {
        Self(self.0 & !Self::VACATED)
    }

    /// Returns the state of a huge frame that is allocated as one.
    #[must_use]
    pub const fn with_whole(self) -> Self {
        Self(self.0 & Self::BACKED | Self::WHOLE | Self::FULL)
    }

    /// Returns the state with backing by the host.
    #[must_use]
    pub const fn with_backing(self) -> Self {
        Self(self.0 | Self::BACKED)
    }

    /// Returns the state without backing by the host.
    #[must_use]
    pub const fn without_backing(self) -> Self {
        Self(self.0 & !Self::BACKED)
    }
}

#[cfg(test)]
mod tests {
    use super::HugeFrameState;

    #[test]
    fn zero_is_free_and_not_backed() {
        let state = HugeFrameState::default();
        assert!(state.is_free() && !state.is_backed() && !state.is_whole());
    }

    #[test]
    fn fields_do_not_overlap() {
        let whole = HugeFrameState::default().with_backing().with_whole();
        assert!(whole.is_full() && whole.is_whole() && whole.is_backed());
        let partly = whole.with_used(3);
        assert_eq!(partly.used(), 3);
        assert!(!partly.is_whole() && partly.is_backed());
        assert!(!partly.without_backing().is_backed());
        let vacated = partly.with_vacated();
        assert!(
            vacated.is_vacated()
                && vacated.is_backed()
                && vacated.used() == 3
                && !vacated.without_vacated().is_vacated()
        );
        let pinned = vacated.with_used(2).with_pinned();
        assert!(pinned.is_pinned() && !pinned.is_vacated() && pinned.used() == 2);
    }

    #[test]
    fn a_reclaimed_huge_frame_is_neither_offered_nor_backed() {
        let offered = HugeFrameState::default().with_backing().with_offer();
        assert!(offered.is_offered() && offered.is_backed() && offered.is_free() && !offered.is_reclaimed());
        assert_eq!(offered.without_offer(), HugeFrameState::default().with_backing());
        let reclaimed = offered.with_reclaimed();
        assert!(reclaimed.is_reclaimed() && !reclaimed.is_offered() && !reclaimed.is_backed());
        assert!(!reclaimed.with_whole().is_reclaimed() && !reclaimed.with_used(0).is_reclaimed(), "noted");
    }

    #[test]
    fn a_wholly_free_huge_frame_is_neither_pinned_nor_vacated() {
        let state = HugeFrameState::default().with_used(1).with_backing().with_pinned();
        assert_eq!(state.with_used(0), HugeFrameState::default().with_backing());
        assert_eq!(state.without_backing().with_pinned().with_vacated().with_used(0), HugeFrameState::default());
    }
}
