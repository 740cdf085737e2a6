//! Offers: free huge frames that the monitor may reclaim without the guest running.
//!
//! While the monitor sees the state words, every wholly free huge frame is offered, as long as the
//! frames that are not offered cover all commit charges and the kernel's floor. An offered frame is
//! as free as any other: an allocation that needs it withdraws the offer, which costs a
//! compare-and-swap. If the monitor was faster, the frame is *reclaimed by the host*: it is in the
//! balloon, and the driver collects it for its page list.
//!
//! A frame that the host reclaims counts as free until the guest notices, but nothing relies on it:
//! commit charges and the balloon are backed by what is [sure](FrameAllocator::sure).

use aerostat_abi::frame_state::{HugeFrameState, HugeFrameWord};
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES};

use super::{FrameAllocator, Purpose};
use crate::mm::bit_tree::BitTree;
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::bump::BumpAllocator;

/// The offers.
#[derive(Debug)]
pub(super) struct Offers {
    is_shared: bool,
    /// Free huge frames whose words are offered, or were until the host reclaimed them.
    offered: BitTree,
    count: u64,
    /// Huge frames that were found reclaimed by the host and are not in the page list yet.
    taken: BitTree,
}

impl Offers {
    /// Returns how many zeroed words the metadata of `huge_frames` huge frames needs.
    pub(super) const fn words(huge_frames: usize) -> usize {
        2 * BitTree::words(huge_frames)
    }

    /// Creates an empty set of offers.
    pub(super) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        Self {
            is_shared: false,
            offered: BitTree::new(huge_frames, bump),
            count: 0,
            taken: BitTree::new(huge_frames, bump),
        }
    }

    pub(super) fn contains(&self, huge: usize) -> bool {
        self.offered.contains(huge)
    }

    /// Returns whether the host has reclaimed it and the driver has not collected it.
    pub(super) fn awaits_collection(&self, huge: usize) -> bool {
        self.taken.contains(huge)
    }

    /// Returns the number of frames that are offered.
    pub(super) fn frames(&self) -> u64 {
        self.count * HUGE_FRAMES
    }

    fn insert(&mut self, huge: usize) {
        self.offered.insert(huge);
        self.count += 1;
    }

    fn remove(&mut self, huge: usize) {
        self.offered.remove(huge);
        self.count -= 1;
    }
}

impl FrameAllocator {
    /// Returns the state words of all huge frames from address 0 on.
    pub(crate) fn states(&self) -> &'static [HugeFrameWord] {
        self.states
    }

    /// Notes that the monitor sees the state words from now on.
    pub(crate) fn begin_offers(&mut self) {
        self.offers.is_shared = true;
        self.offer_spare();
    }

    /// Offers the free huge frames that can be offered by now, because a commit charge was
    /// uncharged since they were freed.
    pub(crate) fn offer_spare(&mut self) {
        if self.free.count_whole() as u64 == self.offers.count {
            return;
        }
        for huge in 0..self.free.huge_frames() {
            if self.open_to(Purpose::Balloon) < HUGE_FRAMES {
                return;
            }
            if self.free.contains_whole(huge) && !self.offers.contains(huge) {
                self.offer(huge);
            }
        }
    }

    /// Returns a huge frame that the host has reclaimed. The caller owns it from now on, for the
    /// balloon.
    pub(crate) fn collect_reclaimed(&mut self) -> Option<Block> {
        let huge = self.offers.taken.first().or_else(|| {
            self.find_reclaimed();
            self.offers.taken.first()
        })?;
        self.offers.taken.remove(huge);
        self.ballooned += HUGE_FRAMES;
        let first = FrameNumber(huge as u64 * HUGE_FRAMES);
        self.set_state(huge, HugeFrameState::default().with_whole());
        Some(Block::from_number(first, BlockSize::Huge, Contents::Zero))
    }

    /// Returns the number of frames that the host has reclaimed and the driver has not collected.
    pub(crate) fn taken(&mut self) -> FrameCount {
        self.find_reclaimed();
        FrameCount(self.offers.taken.count() as u64 * HUGE_FRAMES)
    }

    /// Searches all offers for those that the monitor has accepted.
    fn find_reclaimed(&mut self) {
        if self.offers.count == 0 {
            return;
        }
        for huge in 0..self.free.huge_frames() {
            if self.offers.contains(huge) && self.state(huge).is_reclaimed() {
                self.lose(huge);
            }
        }
    }

    /// Offers a wholly free huge frame, if that leaves enough.
    pub(super) fn offer(&mut self, huge: usize) {
        if !self.offers.is_shared || self.open_to(Purpose::Balloon) < HUGE_FRAMES {
            return;
        }
        self.offers.insert(huge);
        self.states[huge].store(self.state(huge).with_offer());
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
    pub(super) fn claim(&mut self, huge: usize) -> bool {
        if !self.offers.contains(huge) {
            return true;
        }
        if self.states[huge].withdraw().is_err() {
            self.lose(huge);
            return false;
        }
        self.offers.remove(huge);
        true
    }

    /// Notes that the host has reclaimed a huge frame.
    fn lose(&mut self, huge: usize) {
        self.offers.remove(huge);
        self.offers.taken.insert(huge);
        self.backed.remove(huge);
        let _ = self.free.remove_whole(huge);
    }
}

#[cfg(test)]
mod tests;
