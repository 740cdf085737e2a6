//! The frame allocator: hands out frames and huge frames in constant time, without a heap, and
//! knows which of them the host backs.
//!
//! * [`placement`]: which frame is handed out next.
//! * [`commit`]: how many frames are free and committed, and which of them are open to which
//!   [`Purpose`].
//! * [`offers`]: which free huge frames a monitor that sees the state words may reclaim.
//!
//! [`FrameAllocator`] keeps the three in step. Single frames of pages go through the CPUs'
//! [`FrameCache`]s; the allocator counts the frames in a cache as handed out.
//!
//! Zeroed metadata means "all free, nothing backed", so a start costs no time per frame.

mod commit;
mod offers;
mod placement;
mod purpose;

use core::ops::Range;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HugeFrameNumber};

use self::commit::CommitAccounts;
pub(crate) use self::commit::FrameStatistics;
use self::offers::Offers;
use self::placement::{Mobility, Placement, Source, Use, huge_frames};
pub(crate) use self::purpose::Purpose;
use super::block::{Backing, Block, BlockSize, HugeRun};
use super::bump::BumpAllocator;
use super::compaction::policy::Occupancy;
use super::frame_cache::{BATCH, FrameCache};

/// The frame allocator of one machine.
#[derive(Debug)]
pub(crate) struct FrameAllocator {
    placement: Placement,
    commit: CommitAccounts,
    offers: Offers,
    /// Frames in the balloon.
    ballooned: u64,
}

impl FrameAllocator {
    /// Returns how many zeroed 64-bit words the metadata of `frames` frames needs.
    #[must_use]
    pub(crate) fn words(frames: FrameCount) -> usize {
        Placement::words(huge_frames(frames)) + Offers::words(huge_frames(frames))
    }

    /// Creates an allocator that owns all frames below `frames` except those in `reserved`, and
    /// keeps `floor` frames for the kernel.
    ///
    /// # Safety
    /// The caller owns all frames below `frames` that are not reserved, and gives them up.
    #[allow(unsafe_code, reason = "takes the ownership of a whole machine")]
    pub(crate) unsafe fn new(
        frames: FrameCount,
        reserved: impl IntoIterator<Item = Range<FrameNumber>>,
        floor: FrameCount,
        bump: &mut BumpAllocator,
    ) -> Self {
        let mut placement = Placement::new(huge_frames(frames), bump);
        // SAFETY: the caller owns them.
        unsafe { placement.fill(frames, reserved) };
        let mut commit = CommitAccounts::new(floor);
        commit.free(placement.len());
        Self { placement, commit, offers: Offers::new(huge_frames(frames), bump), ballooned: 0 }
    }

    /// Notes that memory which the host does not back may hold anything: firmware ran here before,
    /// or the host does not say what is in memory that it had.
    pub(crate) fn distrust_unbacked(&mut self) {
        self.placement.distrust_unbacked();
    }

    /// Charges `frames` frames to the commit.
    ///
    /// # Errors
    /// Returns how many frames are missing; nothing is charged then.
    pub(crate) fn charge_commit(&mut self, frames: FrameCount) -> Result<(), FrameCount> {
        loop {
            match self.commit.charge(frames) {
                Err(_) if self.withdraw_offer() => {}
                result => return result,
            }
        }
    }

    /// Uncharges what is left of a commit charge; see [`CommitAccounts::uncharge`].
    pub(crate) fn uncharge_commit(&mut self, frames: FrameCount) {
        self.commit.uncharge(frames);
    }

    /// Adds swap headroom: `frames` more pages can be evicted.
    pub(crate) fn add_headroom(&mut self, frames: FrameCount) {
        self.commit.add_headroom(frames);
    }

    /// Removes swap headroom: `frames` pages can't be evicted after all. Commit charges that it
    /// backed stay.
    pub(crate) fn remove_headroom(&mut self, frames: FrameCount) {
        self.commit.remove_headroom(frames);
        while self.commit.lacks_backing() && self.withdraw_offer() {}
    }

    /// Hands out a block, or `None` when no block of that size is open to that purpose.
    pub(crate) fn allocate(&mut self, size: BlockSize, purpose: Purpose) -> Option<Block> {
        if !self.secure(size.frames(), purpose) {
            return None;
        }
        let block = match size {
            BlockSize::Huge => self.take_huge()?,
            BlockSize::Frame if purpose == Purpose::Balloon => self.take_frame(Use::Balloon)?,
            BlockSize::Frame => self.take_frame(Use::Memory(Mobility::of(purpose)))?,
        };
        Some(self.handed_out(block, purpose))
    }

    /// Hands out a frame for a page table, or `None` when none is open to that purpose; see
    /// [`Use::Table`].
    pub(crate) fn allocate_table(&mut self, purpose: Purpose) -> Option<Block> {
        if !self.secure(1, purpose) {
            return None;
        }
        let block = self.take_frame(Use::Table)?;
        Some(self.handed_out(block, purpose))
    }

    /// Hands out one particular block, if it is free and open to that purpose. The balloon claims
    /// in this way what the monitor counts as ballooned.
    pub(crate) fn claim_block(&mut self, first: FrameNumber, size: BlockSize, purpose: Purpose) -> Option<Block> {
        let huge = HugeFrameNumber::containing(first);
        let is_free = first.is_aligned(size.order()) && self.placement.contains(first, size);
        if !is_free || !self.claim(huge) || !self.secure(size.frames(), purpose) {
            return None;
        }
        let block = match size {
            BlockSize::Huge => self.placement.take_whole(huge),
            BlockSize::Frame => self.placement.take_frame(first, Mobility::of(purpose))?,
        };
        Some(self.handed_out(block, purpose))
    }

    /// Hands out these huge frames for the balloon, if all of them are wholly free and untouched
    /// and open to it. It takes far less time than to claim each: most of a large machine is
    /// ballooned when it starts.
    pub(crate) fn claim_run(&mut self, run: Range<HugeFrameNumber>) -> Option<HugeRun> {
        let frames = run.end.0.saturating_sub(run.start.0) * HUGE_FRAMES;
        // Each offer would have to be withdrawn.
        if self.commit.offered() > 0 || self.commit.open_to(Purpose::Balloon) < frames {
            return None;
        }
        let run = self.placement.take_run(run)?;
        self.commit.hand_out(frames, Purpose::Balloon);
        self.ballooned += frames;
        Some(run)
    }

    /// Returns the lowest huge frame, from `from` on, that has free frames.
    pub(crate) fn next_free(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.placement.next_free(from)
    }

    /// Returns a frame to move a page into, out of a broken huge frame that keeps its pages. The
    /// frame that the page leaves makes up for it.
    pub(crate) fn replacement(&mut self) -> Option<Block> {
        if !self.placement.has_replacement() || !self.secure(1, Purpose::Kernel) {
            return None;
        }
        let block = self.placement.take_replacement()?;
        Some(self.handed_out(block, Purpose::Kernel))
    }

    /// Frees a block that the host still backs.
    pub(crate) fn free(&mut self, block: Block) {
        self.commit.free(block.size().frames());
        self.put_back(block, Backing::Backed);
    }

    /// Hands out a free huge frame that the host backs, for a report to the host; `None` when there
    /// is none that can be spared.
    pub(crate) fn take_backed(&mut self) -> Option<Block> {
        let huge = self.placement.first_backed()?;
        if self.commit.open_to(Purpose::Spare) < HUGE_FRAMES || !self.claim(huge) {
            return None;
        }
        let block = self.placement.take_whole(huge);
        Some(self.handed_out(block, Purpose::Spare))
    }

    /// Frees a block that was reported to the host, which does not back it any more.
    pub(crate) fn free_reported(&mut self, block: Block) {
        self.commit.free(block.size().frames());
        self.put_back(block, Backing::Unbacked);
    }

    /// Frees a frame that counted as swap headroom: one of the compressed pool, or one with a page
    /// of a file.
    pub(crate) fn free_in_headroom(&mut self, block: Block) {
        self.commit.free_in_headroom(block.size().frames());
        self.put_back(block, Backing::Backed);
    }

    /// Frees a block that was drawn from a commit charge and not used, or whose page was evicted.
    /// The commit is charged for it again.
    pub(crate) fn free_committed(&mut self, block: Block) {
        let frames = block.size().frames();
        self.commit.free_committed(frames, frames);
        self.put_back(block, Backing::Backed);
    }

    /// Frees a block of the balloon. Memory that the host had in between is not backed.
    pub(crate) fn deflate(&mut self, block: Block, backing: Backing) {
        let frames = block.size().frames();
        self.ballooned -= frames;
        self.commit.free(frames);
        self.put_back(block, backing);
    }

    /// Returns the number of frames in the balloon, without those that the host has reclaimed and
    /// the driver has not collected.
    pub(crate) fn ballooned(&self) -> FrameCount {
        FrameCount(self.ballooned)
    }

    /// Fills a frame cache: first charges the commit to frames that it has without a commit charge,
    /// then adds a batch of frames with their commit charges.
    pub(crate) fn fill(&mut self, frame_cache: &mut FrameCache) {
        self.commit.move_charges(|charges| frame_cache.accept_commit_charges(charges));
        let wanted = (BATCH as u64).saturating_sub(frame_cache.len()).min(self.commit.open_to(Purpose::Committed));
        for _ in 0..wanted {
            let Some(block) = self.take_frame(Use::Memory(Mobility::Movable)) else { return };
            let block = self.handed_out(block, Purpose::Committed);
            frame_cache.put_committed(block);
        }
    }

    /// Frees up to `count` frames of a frame cache, those that have been there longest, and moves
    /// back the commit charges for which the cache then has no frames.
    pub(crate) fn drain(&mut self, frame_cache: &mut FrameCache, count: usize) {
        let (frames, charges) = frame_cache.drainable(count);
        self.commit.free_committed(frames, charges);
        frame_cache.drain(count, |block| self.put_back(block, Backing::Backed));
    }

    /// Returns whether the last reserve is in use, or removed swap headroom still backs commit
    /// charges. Nothing must be cached then, so that the allocator alone knows all free frames.
    pub(crate) fn is_tight(&self) -> bool {
        self.commit.is_tight()
    }

    /// Returns the metrics.
    #[must_use]
    pub(crate) fn statistics(&self) -> FrameStatistics {
        self.statistics_with(0, 0)
    }

    /// Returns the metrics with so many more frames free and committed.
    pub(crate) fn statistics_with(&self, free: u64, committed: u64) -> FrameStatistics {
        self.commit.statistics_with(free, committed)
    }

    /// Returns how many frames would be open to a purpose if all offers were withdrawn and the host
    /// reclaimed none of them.
    pub(crate) fn within_reach_of(&self, purpose: Purpose) -> u64 {
        self.commit.open_to(purpose) + self.commit.offered()
    }

    /// Returns how many huge frames are wholly free.
    pub(crate) fn whole_huge_frames(&self) -> usize {
        self.placement.count_whole()
    }

    /// Returns the number of frames in wholly free huge frames that the host backs.
    pub(crate) fn backed_free(&self) -> FrameCount {
        FrameCount(self.placement.count_backed() as u64 * HUGE_FRAMES)
    }

    /// Counts the huge frames that pages could be moved out of, or into; see
    /// [`Placement::occupancy`].
    pub(crate) fn occupancy(&self) -> Occupancy {
        self.placement.occupancy()
    }

    /// Begins to vacate up to `wanted` huge frames; see [`Placement::vacate`].
    pub(crate) fn vacate(&mut self, wanted: usize) -> usize {
        self.placement.vacate(wanted)
    }

    /// Returns whether huge frames are being vacated and not empty yet.
    pub(crate) fn is_vacating(&self) -> bool {
        self.placement.vacated() > 0
    }

    /// Returns whether the page in `frame` must be moved.
    pub(crate) fn is_vacated(&self, frame: FrameNumber) -> bool {
        self.placement.state(HugeFrameNumber::containing(frame)).is_vacated()
    }

    /// Ends vacating. Pages that were not moved stay where they are.
    pub(crate) fn end_vacating(&mut self) {
        self.placement.end_vacating();
    }

    /// Recounts everything: checks the free frames against their summaries and state words, and the
    /// commit accounts against the free frames and against their own invariant.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.placement.validate()?;
        for huge in self.placement.huge_frames() {
            let state = self.placement.state(huge);
            if self.offers.contains(huge) {
                if state.is_offered() == state.is_reclaimed() || !self.placement.contains_whole(huge) {
                    return Err("an offer and its state disagree");
                }
                continue; // the monitor may change it at any moment
            }
            if state.is_offered() || state.is_reclaimed() != self.offers.awaits_collection(huge) {
                return Err("a huge frame is offered or reclaimed that is not listed");
            }
            if state.is_reclaimed() {
                continue; // the driver gets it at its next poll
            }
            self.placement.validate_huge_frame(huge)?;
        }
        if self.commit.all_free() != self.placement.len() {
            return Err("the commit accounts count other free frames than there are");
        }
        self.commit.validate()
    }

    /// Makes `frames` frames open to a purpose, by withdrawing offers if need be. Returns whether
    /// they are.
    fn secure(&mut self, frames: u64, purpose: Purpose) -> bool {
        while self.commit.open_to(purpose) < frames {
            if !self.withdraw_offer() {
                return false;
            }
        }
        true
    }

    /// Enters a block in the accounts that was taken for a purpose.
    fn handed_out(&mut self, block: Block, purpose: Purpose) -> Block {
        let frames = block.size().frames();
        self.commit.hand_out(frames, purpose);
        if purpose == Purpose::Balloon {
            self.ballooned += frames;
        }
        block
    }

    fn take_huge(&mut self) -> Option<Block> {
        loop {
            let huge = self.placement.next_whole()?;
            if self.claim(huge) {
                return Some(self.placement.take_whole(huge));
            }
        }
    }

    fn take_frame(&mut self, wanted: Use) -> Option<Block> {
        loop {
            match self.placement.source(wanted)? {
                Source::Partial(huge) => return self.placement.take_from(huge, wanted.mobility()),
                Source::Whole(huge) if self.claim(huge) => return Some(self.placement.break_whole(huge, wanted)),
                Source::Whole(_) => {} // the host was faster
            }
        }
    }

    /// Makes a block free that the accounts count as free, and offers its huge frame if that is
    /// whole and can be spared.
    fn put_back(&mut self, block: Block, backing: Backing) {
        if let Some(huge) = self.placement.put_back(block, backing) {
            self.offer(huge);
        }
    }
}

#[cfg(test)]
mod tests;
