//! Offers: free huge frames that the monitor may take without the guest running.
//!
//! While the monitor sees the state words, every wholly free huge frame is offered, as long as what
//! is not offered covers all commit charges and the kernel's floor. An offered frame is as free as
//! any other: whoever needs it withdraws the offer, which costs a compare-and-swap. If the monitor
//! was faster, the frame is *taken*: it is in the balloon, and the driver collects it for its page
//! list.
//!
//! What the monitor takes counts as free until somebody notices, but nobody relies on it: commit
//! charges and the balloon rest on what is [sure](FrameAllocator::sure).

use aerostat_abi::frame_state::{HugeFrameState, HugeFrameWord};
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES};

use super::{FrameAllocator, Purpose};
use crate::mm::bit_tree::BitTree;
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::bump::BumpAllocator;

/// What is offered.
#[derive(Debug)]
pub(super) struct Offers {
    is_shared: bool,
    /// Free huge frames whose words are offered, or were until the monitor took them.
    offered: BitTree,
    count: u64,
    /// Huge frames that turned out to be taken and are not in the page list yet.
    taken: BitTree,
}

impl Offers {
    /// Zeroed words that the accounts of `huge_frames` huge frames need.
    pub(super) const fn words(huge_frames: usize) -> usize {
        2 * BitTree::words(huge_frames)
    }

    /// Nothing is offered.
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

    /// Whether it was taken, and the driver has not collected it.
    pub(super) fn awaits_collection(&self, huge: usize) -> bool {
        self.taken.contains(huge)
    }

    /// Frames in what is offered.
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
    /// The words of all huge frames from address 0 on.
    pub(crate) fn states(&self) -> &'static [HugeFrameWord] {
        self.states
    }

    /// The monitor sees the words from now on.
    pub(crate) fn begin_offers(&mut self) {
        self.offers.is_shared = true;
        self.offer_spare();
    }

    /// Offers what has become free to be offered since it was freed, because a commit charge has
    /// ended.
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

    /// A huge frame that the monitor has taken; the caller has it from now on, for the balloon.
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

    /// Frames that the monitor has taken and nobody has collected.
    pub(crate) fn taken(&mut self) -> FrameCount {
        self.find_reclaimed();
        FrameCount(self.offers.taken.count() as u64 * HUGE_FRAMES)
    }

    /// Looks through all offers for those that the monitor has accepted.
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

    /// Withdraws the first offer that the monitor has not accepted; says whether there was one.
    pub(super) fn withdraw_offer(&mut self) -> bool {
        while let Some(huge) = self.offers.offered.first() {
            if self.claim(huge) {
                return true;
            }
        }
        false
    }

    /// Makes sure that the monitor can't take a wholly free huge frame; says whether that is so, or
    /// else it is lost.
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

    /// Notes that the monitor has a huge frame.
    fn lose(&mut self, huge: usize) {
        self.offers.remove(huge);
        self.offers.taken.insert(huge);
        self.backed.remove(huge);
        let _ = self.free.remove_whole(huge);
    }
}

#[cfg(test)]
mod tests;
