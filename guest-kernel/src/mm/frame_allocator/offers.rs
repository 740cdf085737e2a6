//! Offers: free huge frames that the monitor may reclaim without the guest running.
//!
//! While the monitor sees the state words, every wholly free huge frame is offered, as long as the
//! frames that are not offered cover all commit charges and the kernel's floor. An offered frame is
//! as free as any other: an allocation that needs it withdraws the offer, which costs a
//! compare-and-swap. If the monitor was faster, the frame is *reclaimed by the host*: it is in the
//! balloon, and the driver collects it for its page list.
//!
//! A frame that the host reclaims counts as free until the guest notices, but nothing relies on it:
//! commit charges and the balloon are backed by free frames that the host can't reclaim.
#![allow(unsafe_code, reason = "what the host has reclaimed is kept as bits and becomes a block again")]

use aerostat_abi::frame_state::{HugeFrameState, HugeFrameWord};
use aerostat_abi::units::{FrameCount, HUGE_FRAMES, HugeFrameNumber};

use super::{FrameAllocator, Purpose};
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::bump::BumpAllocator;
use crate::mm::huge_frame_set::HugeFrameSet;

/// The offers.
#[derive(Debug)]
pub(super) struct Offers {
    /// Whether the monitor sees the state words.
    is_shared: bool,
    /// Free huge frames whose words are offered, or were until the host reclaimed them.
    offered: HugeFrameSet,
    /// Owned huge frames that were found reclaimed by the host and are not in the page list yet.
    reclaimed: HugeFrameSet,
}

impl Offers {
    /// Returns how many zeroed words the metadata of `huge_frames` huge frames needs.
    pub(super) const fn words(huge_frames: usize) -> usize {
        2 * HugeFrameSet::words(huge_frames)
    }

    /// Creates an empty set of offers.
    pub(super) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        let (offered, reclaimed) = (HugeFrameSet::new(huge_frames, bump), HugeFrameSet::new(huge_frames, bump));
        Self { is_shared: false, offered, reclaimed }
    }

    pub(super) fn contains(&self, huge: HugeFrameNumber) -> bool {
        self.offered.contains(huge)
    }

    /// Returns whether the host has reclaimed it and the driver has not collected it.
    pub(super) fn awaits_collection(&self, huge: HugeFrameNumber) -> bool {
        self.reclaimed.contains(huge)
    }
}

impl FrameAllocator {
    /// Returns the state words of all huge frames from address 0 on.
    pub(crate) fn states(&self) -> &'static [HugeFrameWord] {
        self.placement.states()
    }

    /// Notes that the monitor sees the state words from now on.
    pub(crate) fn begin_offers(&mut self) {
        self.offers.is_shared = true;
        self.offer_spare();
    }

    /// Offers the free huge frames that can be offered by now, because a commit charge was
    /// uncharged since they were freed.
    pub(crate) fn offer_spare(&mut self) {
        if self.placement.count_whole() as u64 * HUGE_FRAMES == self.commit.offered() {
            return;
        }
        let mut at = HugeFrameNumber(0);
        while let Some(huge) = self.placement.next_whole_from(at) {
            if self.commit.open_to(Purpose::Balloon) < HUGE_FRAMES {
                return;
            }
            if !self.offers.contains(huge) {
                self.offer(huge);
            }
            at = HugeFrameNumber(huge.0 + 1);
        }
    }

    /// Returns a huge frame that the host has reclaimed. The caller owns it from now on, for the
    /// balloon.
    pub(crate) fn collect_reclaimed(&mut self) -> Option<Block> {
        let huge = self.offers.reclaimed.first().or_else(|| {
            self.find_reclaimed();
            self.offers.reclaimed.first()
        })?;
        self.offers.reclaimed.remove(huge);
        self.ballooned += HUGE_FRAMES;
        self.placement.set_state(huge, HugeFrameState::default().with_whole());
        // SAFETY: the set owned the huge frame, and it is a member no more.
        Some(unsafe { Block::from_raw(huge.first(), BlockSize::Huge, Contents::Zero) })
    }

    /// Returns the number of frames that the host has reclaimed and the driver has not collected.
    pub(crate) fn reclaimed_by_host(&mut self) -> FrameCount {
        self.find_reclaimed();
        FrameCount(self.offers.reclaimed.count() as u64 * HUGE_FRAMES)
    }

    /// Searches all offers for those that the monitor has accepted.
    fn find_reclaimed(&mut self) {
        if self.commit.offered() == 0 {
            return;
        }
        let mut at = HugeFrameNumber(0);
        while let Some(huge) = self.offers.offered.next(at) {
            if self.placement.state(huge).is_reclaimed() {
                self.lose(huge);
            }
            at = HugeFrameNumber(huge.0 + 1);
        }
    }

    /// Offers a wholly free huge frame, if that leaves enough.
    pub(super) fn offer(&mut self, huge: HugeFrameNumber) {
        if !self.offers.is_shared || self.commit.open_to(Purpose::Balloon) < HUGE_FRAMES {
            return;
        }
        self.offers.offered.insert(huge);
        self.commit.offer(HUGE_FRAMES);
        self.placement.set_state(huge, self.placement.state(huge).with_offer());
    }

    /// Withdraws the first offer that the monitor has not accepted. Returns whether there was one.
    pub(super) fn withdraw_offer(&mut self) -> bool {
        while let Some(huge) = self.offers.offered.first() {
            if self.claim(huge) {
                return true;
            }
        }
        false
    }

    /// Makes sure that the host can't reclaim a wholly free huge frame. Returns whether that
    /// succeeded; otherwise the frame is lost to the balloon.
    pub(super) fn claim(&mut self, huge: HugeFrameNumber) -> bool {
        if !self.offers.contains(huge) {
            return true;
        }
        if self.placement.withdraw(huge).is_err() {
            self.lose(huge);
            return false;
        }
        self.offers.offered.remove(huge);
        self.commit.withdraw(HUGE_FRAMES);
        true
    }

    /// Notes that the host has reclaimed a huge frame.
    fn lose(&mut self, huge: HugeFrameNumber) {
        self.offers.offered.remove(huge);
        self.commit.lose(HUGE_FRAMES);
        if let Some(block) = self.placement.lose(huge) {
            let _ = block.into_number();
            self.offers.reclaimed.insert(huge);
        }
    }
}

#[cfg(test)]
mod tests;
