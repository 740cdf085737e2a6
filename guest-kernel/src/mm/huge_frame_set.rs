//! A set of huge frames: a [`BitTree`] whose numbers are those of huge frames.

use aerostat_abi::units::HugeFrameNumber;

use super::bit_tree::BitTree;
use super::bump::BumpAllocator;

/// A set of huge frames of a machine with a fixed number of them.
#[derive(Debug)]
pub(crate) struct HugeFrameSet(BitTree);

impl HugeFrameSet {
    /// Returns how many words a set over `huge_frames` huge frames needs.
    pub(crate) const fn words(huge_frames: usize) -> usize {
        BitTree::words(huge_frames)
    }

    /// Creates the empty set.
    pub(crate) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        Self(BitTree::new(huge_frames, bump))
    }

    pub(crate) fn contains(&self, huge: HugeFrameNumber) -> bool {
        self.0.contains(huge.index())
    }

    pub(crate) fn insert(&mut self, huge: HugeFrameNumber) {
        self.0.insert(huge.index());
    }

    pub(crate) fn remove(&mut self, huge: HugeFrameNumber) {
        self.0.remove(huge.index());
    }

    /// Adds every huge frame of the machine.
    pub(crate) fn fill(&mut self) {
        self.0.fill();
    }

    /// Returns the lowest member.
    pub(crate) fn first(&self) -> Option<HugeFrameNumber> {
        self.0.first().map(|index| HugeFrameNumber(index as u64))
    }

    /// Counts the members, a word at a time.
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }
}
