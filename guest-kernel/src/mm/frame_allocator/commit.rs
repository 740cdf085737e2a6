//! The commit accounts: how many frames are free and committed, what backs the commit, and how many
//! frames are open to whom.
//!
//! Pure: only numbers of frames cross this file. Which frames they are is decided in
//! [`placement`](super::placement).
//!
//! Memory is committed when an application allocates it, not when it is touched. A page fault draws
//! on the commit charge; at worst it waits until a frame is free. A charge is backed by a free
//! frame or, where the guest can swap, by *swap headroom*: the number of pages that can be evicted
//! to free a frame each.
//!
//! **The invariant** ([`CommitAccounts::validate`]): *every commit charge is backed.*
//!
//! > committed ≤ free + headroom + unbacked
//!
//! `unbacked` is zero unless swap headroom is removed from under commit charges that it backed, as
//! when a swap disk fails. Then it is what those charges lack. It shrinks as frames become free or
//! commit charges end, and nothing else makes it grow.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::Purpose;
use crate::config::{EVICTION_RESERVE, MAX_READ_AHEAD, MAX_THREADS};

/// Most frames that all threads together may have drawn from commit charges and not used yet. Each
/// thread has at most a huge frame, or the pages of one read.
const MOST_IN_USE: u64 = HUGE_FRAMES * MAX_THREADS as u64;
const _: () = assert!(MAX_READ_AHEAD as u64 <= HUGE_FRAMES);

/// The allocator's metrics, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameStatistics {
    /// Free frames.
    pub free: FrameCount,
    /// Frames committed for pages that were never touched and for pages that were evicted.
    pub committed: FrameCount,
    /// Frames that can still be committed.
    pub available: FrameCount,
}

/// The commit accounts of one machine, in frames.
#[derive(Clone, Debug, Default)]
pub(super) struct CommitAccounts {
    /// Free frames that the host can't reclaim.
    free: u64,
    /// Free frames that are offered: the host may reclaim them at any moment, so they back nothing.
    offered: u64,
    /// Frames that are committed and not drawn yet.
    committed: u64,
    /// Pages that can be evicted.
    headroom: u64,
    /// Commit charges that nothing backs; see the invariant.
    unbacked: u64,
    /// Frames drawn from commit charges that were uncharged since. When these frames are freed, no
    /// commit is charged for them.
    ended_in_use: u64,
    /// Free frames that only the kernel may use.
    floor: u64,
}

impl CommitAccounts {
    /// Creates the accounts of a machine without frames, which keeps `floor` frames for the kernel.
    pub(super) fn new(floor: FrameCount) -> Self {
        Self { floor: floor.0, ..Self::default() }
    }

    /// Charges `frames` frames to the commit.
    ///
    /// # Errors
    /// Returns how many frames are missing; nothing is charged then.
    pub(super) fn charge(&mut self, frames: FrameCount) -> Result<(), FrameCount> {
        match frames.checked_sub(self.available()) {
            None | Some(FrameCount::ZERO) => {
                self.committed += frames.0;
                Ok(())
            }
            Some(missing) => Err(missing),
        }
    }

    /// Uncharges what is left of a commit charge. Part of it may be drawn and not used yet: the
    /// region of a page that is being read may end meanwhile, and the frames are freed afterwards
    /// ([`Self::free_committed`]).
    pub(super) fn uncharge(&mut self, frames: FrameCount) {
        self.ended_in_use += frames.0.saturating_sub(self.committed);
        debug_assert!(self.ended_in_use <= MOST_IN_USE, "more commit charges ended than made");
        self.committed = self.committed.saturating_sub(frames.0);
        self.settle();
    }

    /// Counts `frames` free frames as handed out for a purpose. They are open to it
    /// ([`Self::open_to`]).
    pub(super) fn hand_out(&mut self, frames: u64, purpose: Purpose) {
        self.free -= frames;
        match purpose {
            Purpose::Committed | Purpose::CommittedPinned | Purpose::CommittedReserve => self.committed -= frames,
            Purpose::CompressedPool | Purpose::File => self.headroom += frames,
            Purpose::Balloon | Purpose::Kernel | Purpose::Spare => {}
        }
    }

    /// Counts `frames` more frames as free.
    pub(super) fn free(&mut self, frames: u64) {
        self.free += frames;
        self.settle();
    }

    /// Counts `frames` frames as free that counted as swap headroom.
    pub(super) fn free_in_headroom(&mut self, frames: u64) {
        self.headroom -= frames;
        self.free(frames);
    }

    /// Counts `frames` frames as free that were drawn from commit charges, and charges the commit
    /// for `charges` of them again, except for those whose commit charge was uncharged meanwhile.
    pub(super) fn free_committed(&mut self, frames: u64, charges: u64) {
        let ended = self.ended_in_use.min(charges);
        self.ended_in_use -= ended;
        self.committed += charges - ended;
        self.free(frames);
    }

    /// Moves commit charges to frames that were handed out without any. `accept` gets the number of
    /// charges here, and returns how many it has taken.
    pub(super) fn move_charges(&mut self, accept: impl FnOnce(u64) -> u64) {
        self.committed -= accept(self.committed);
        self.settle();
    }

    /// Adds swap headroom: `frames` more pages can be evicted.
    pub(super) fn add_headroom(&mut self, frames: FrameCount) {
        self.headroom += frames.0;
        self.settle();
    }

    /// Removes swap headroom: `frames` pages can't be evicted after all. Commit charges that it
    /// backed stay.
    pub(super) fn remove_headroom(&mut self, frames: FrameCount) {
        debug_assert!(frames.0 <= self.headroom, "more swap headroom removed than added");
        self.headroom = self.headroom.saturating_sub(frames.0);
        self.unbacked = self.shortfall();
    }

    /// Counts `frames` free frames as offered to the host.
    pub(super) fn offer(&mut self, frames: u64) {
        self.free -= frames;
        self.offered += frames;
    }

    /// Counts `frames` offered frames as free: the host can't reclaim them any more.
    pub(super) fn withdraw(&mut self, frames: u64) {
        self.offered -= frames;
        self.free(frames);
    }

    /// Counts `frames` offered frames as reclaimed by the host.
    pub(super) fn lose(&mut self, frames: u64) {
        self.offered -= frames;
    }

    /// Returns the number of offered frames.
    pub(super) fn offered(&self) -> u64 {
        self.offered
    }

    /// Returns the number of free frames, offered ones included.
    pub(super) fn all_free(&self) -> u64 {
        self.free + self.offered
    }

    /// Returns the number of frames that can be committed without withdrawing an offer.
    fn available(&self) -> FrameCount {
        FrameCount((self.free + self.headroom).saturating_sub(self.committed).saturating_sub(self.floor))
    }

    /// Returns how many free frames are open to a purpose.
    pub(super) fn open_to(&self, purpose: Purpose) -> u64 {
        let free = self.free;
        match purpose {
            Purpose::Kernel => free.saturating_sub(self.committed.saturating_sub(self.headroom)),
            Purpose::Committed | Purpose::CommittedPinned => self.committed.min(free.saturating_sub(self.reserve())),
            Purpose::CommittedReserve => self.committed.min(free),
            Purpose::CompressedPool => free,
            Purpose::File => free.saturating_sub(EVICTION_RESERVE.0),
            Purpose::Balloon | Purpose::Spare => self.available().0.min(free.saturating_sub(self.floor)),
        }
    }

    /// Returns whether the last reserve is in use, or commit charges lack frames and headroom.
    pub(super) fn is_tight(&self) -> bool {
        self.free < self.reserve() || self.lacks_backing()
    }

    /// Returns whether there are commit charges that neither a free frame nor headroom backs.
    pub(super) fn lacks_backing(&self) -> bool {
        self.shortfall() > 0
    }

    /// Returns the metrics with so many more frames free and committed. Offered frames count as
    /// free.
    pub(super) fn statistics_with(&self, free: u64, committed: u64) -> FrameStatistics {
        let (free, committed) = (self.all_free() + free, self.committed + committed);
        let available = (free + self.headroom).saturating_sub(committed).saturating_sub(self.floor);
        FrameStatistics { free: FrameCount(free), committed: FrameCount(committed), available: FrameCount(available) }
    }

    /// Checks the invariant.
    ///
    /// # Errors
    /// Returns what is wrong, as a sentence.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        if self.shortfall() > self.unbacked {
            return Err("more frames are committed than are free or can be freed");
        }
        Ok(())
    }

    /// Returns the last reserve. Without swap headroom every commit charge has its frame, and no
    /// reserve is needed.
    fn reserve(&self) -> u64 {
        if self.headroom > 0 { EVICTION_RESERVE.0 } else { 0 }
    }

    /// Returns by how many the commit charges exceed what backs them.
    fn shortfall(&self) -> u64 {
        self.committed.saturating_sub(self.free + self.headroom)
    }

    /// Lowers `unbacked` to what is still without backing.
    fn settle(&mut self) {
        self.unbacked = self.unbacked.min(self.shortfall());
    }

    #[cfg(test)]
    pub(super) fn ended_in_use(&self) -> FrameCount {
        FrameCount(self.ended_in_use)
    }
}

#[cfg(test)]
mod tests;
