//! The frame allocator's word for one huge frame: what it says ([`HugeFrameState`]), and how guest
//! and monitor change it ([`HugeFrameWord`]).
//!
//! A guest may share its words with the monitor ([`crate::port::Command::Share`]). It *offers* huge
//! frames that nobody uses and that have been committed to nobody; the monitor may *take* an
//! offered one at any time, without the guest running, and the guest may *withdraw* an offer at any
//! time, without the monitor knowing. One compare-and-swap settles which of them was first. All
//! other words only the guest writes. (The idea of a frame allocator that guest and hypervisor
//! share is that of HyperAlloc, Wrenger et al., EuroSys 2025.)
//!
//! | bits  | field                                                                              |
//! |-------|------------------------------------------------------------------------------------|
//! | 0..10 | frames in use, 0 to 512                                                            |
//! | 10    | `WHOLE`: allocated as one huge frame (the count is then 512)                        |
//! | 11    | `BACKED`: some frame was handed out since the host last had the memory              |
//! | 12    | `PINNED`: since it was last wholly free, a frame was handed out that can't be moved |
//! | 13    | `VACATED`: its pages are being moved out; its free frames are the last to be taken  |
//! | 14    | `OFFERED`: wholly free, and the monitor may take it                                 |
//! | 15    | `RECLAIMED`: the monitor has taken it: it is given, and the guest has not noted that yet |
//!
//! All zero means: wholly free, and the host backs none of it. So a fresh machine's state needs no
//! initialisation.

mod word;

use core::sync::atomic::AtomicU32;

pub use self::word::{HugeFrameWord, Taken};

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

    /// Frames in use, 0 to 512.
    #[must_use]
    pub const fn used(self) -> u32 {
        self.0 & Self::USED_MASK
    }

    /// Whether no frame is in use.
    #[must_use]
    pub const fn is_free(self) -> bool {
        self.used() == 0
    }

    /// Whether every frame is in use.
    #[must_use]
    pub const fn is_full(self) -> bool {
        self.used() == Self::FULL
    }

    /// Whether it is allocated as one huge frame.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.0 & Self::WHOLE != 0
    }

    /// Whether the host may hold memory behind it.
    #[must_use]
    pub const fn is_backed(self) -> bool {
        self.0 & Self::BACKED != 0
    }

    /// Whether a frame in use may be one that can't be moved.
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        self.0 & Self::PINNED != 0
    }

    /// Whether its pages are being moved out.
    #[must_use]
    pub const fn is_vacated(self) -> bool {
        self.0 & Self::VACATED != 0
    }

    /// Whether the monitor may take it.
    #[must_use]
    pub const fn is_offered(self) -> bool {
        self.0 & Self::OFFERED != 0
    }

    /// Whether the monitor has taken it.
    #[must_use]
    pub const fn is_reclaimed(self) -> bool {
        self.0 & Self::RECLAIMED != 0
    }

    /// The same, offered to the monitor.
    #[must_use]
    pub const fn with_offer(self) -> Self {
        Self(self.0 | Self::OFFERED)
    }

    /// The same, not offered.
    #[must_use]
    pub const fn without_offer(self) -> Self {
        Self(self.0 & !Self::OFFERED)
    }

    /// The same after the monitor took it: the host does not back it any more.
    #[must_use]
    pub const fn with_reclaimed(self) -> Self {
        Self(self.0 & !(Self::OFFERED | Self::BACKED) | Self::RECLAIMED)
    }

    /// The same with `used` frames in use, not as one huge frame. With none in use, nothing is
    /// pinned and nothing left to move.
    #[must_use]
    pub const fn with_used(self, used: u32) -> Self {
        debug_assert!(used <= Self::FULL);
        let kept = if used == 0 { Self::BACKED } else { Self::BACKED | Self::PINNED | Self::VACATED };
        Self(self.0 & kept | used)
    }

    /// The same, with a frame in use that can't be moved: moving the others out would be in vain.
    #[must_use]
    pub const fn with_pinned(self) -> Self {
        Self((self.0 | Self::PINNED) & !Self::VACATED)
    }

    /// The same, with its pages being moved out.
    #[must_use]
    pub const fn with_vacated(self) -> Self {
        Self(self.0 | Self::VACATED)
    }

    /// The same, with its pages staying.
    #[must_use]
    pub const fn without_vacated(self) -> Self {
        Self(self.0 & !Self::VACATED)
    }

    /// The same, allocated as one huge frame.
    #[must_use]
    pub const fn with_whole(self) -> Self {
        Self(self.0 & Self::BACKED | Self::WHOLE | Self::FULL)
    }

    /// The same, backed by the host.
    #[must_use]
    pub const fn with_backing(self) -> Self {
        Self(self.0 | Self::BACKED)
    }

    /// The same, not backed by the host.
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
    fn fields_do_not_touch_each_other() {
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
    fn what_is_taken_is_neither_offered_nor_backed() {
        let offered = HugeFrameState::default().with_backing().with_offer();
        assert!(offered.is_offered() && offered.is_backed() && offered.is_free() && !offered.is_reclaimed());
        assert_eq!(offered.without_offer(), HugeFrameState::default().with_backing());
        let taken = offered.with_reclaimed();
        assert!(taken.is_reclaimed() && !taken.is_offered() && !taken.is_backed());
        assert!(!taken.with_whole().is_reclaimed() && !taken.with_used(0).is_reclaimed(), "noted");
    }

    #[test]
    fn what_is_wholly_free_is_neither_pinned_nor_vacated() {
        let state = HugeFrameState::default().with_used(1).with_backing().with_pinned();
        assert_eq!(state.with_used(0), HugeFrameState::default().with_backing());
        assert_eq!(state.without_backing().with_pinned().with_vacated().with_used(0), HugeFrameState::default());
    }
}
