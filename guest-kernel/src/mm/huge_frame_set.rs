//! A set of huge frames: a [`BitTree`] whose numbers are those of huge frames.

use core::ops::Range;

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

    /// Returns the lowest member that is at least `from`.
    pub(crate) fn next(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.0.next(from.index()).map(|index| HugeFrameNumber(index as u64))
    }

    /// Returns the members, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = HugeFrameNumber> + '_ {
        let mut at = HugeFrameNumber(0);
        core::iter::from_fn(move || {
            let found = self.next(at)?;
            at = HugeFrameNumber(found.0 + 1);
            Some(found)
        })
    }

    /// Returns whether all huge frames of a run are members, or none of them is; `None` where some
    /// are. The machine has all of them.
    pub(crate) fn uniform(&self, run: &Range<HugeFrameNumber>) -> Option<bool> {
        self.0.uniform(&indexes(run))
    }

    /// Adds a run, a word at a time.
    pub(crate) fn insert_all(&mut self, run: &Range<HugeFrameNumber>) {
        self.0.insert_all(&indexes(run));
    }

    /// Removes a run, a word at a time.
    pub(crate) fn remove_all(&mut self, run: &Range<HugeFrameNumber>) {
        self.0.remove_all(&indexes(run));
    }

    /// Counts the members, a word at a time.
    pub(crate) fn count(&self) -> usize {
        self.0.count()
    }
}

fn indexes(run: &Range<HugeFrameNumber>) -> Range<usize> {
    run.start.index()..run.end.index()
}
