//! The frame allocator: hands out frames and huge frames in constant time, without a heap, and
//! knows which of them the host backs.
//!
//! The free frames are a [`FrameSet`]; each huge frame also has a [`HugeFrameState`] word. Single
//! frames are taken from broken huge frames first, lowest address first, so that huge frames stay
//! whole. Huge frames that the host backs already are taken before untouched ones: so the guest
//! does not grow on the host without need, and what the balloon inflates with frees memory there.
//!
//! *Placement.* Frames that can't be moved (page tables, stacks, the compressed pool, single frames
//! in the balloon) are taken from *pinned* huge frames, and those that compaction can move are
//! taken from the others. One kind is taken from the other kind's huge frames only when nothing
//! else is free. So huge frames can become whole again: while a movable one is *vacated*, its pages
//! are moved out and nothing new is allocated in it.
//!
//! Single frames of pages go through the CPUs' [`FrameCache`]s. The allocator counts the frames in
//! a cache as handed out.
//!
//! *Commit charges.* Memory is committed when an application allocates it, not when it is touched
//! ([`FrameAllocator::charge_commit`]). A commit charge is backed by a free frame or, where the
//! guest can swap, by *swap headroom*: the number of pages that can be evicted to free a frame
//! each. A page fault draws on a commit charge; at worst it waits until a frame is free. The
//! [`Purpose`] of an allocation says which frames are open to it.
//!
//! *Offers.* A monitor that sees the state words may reclaim huge frames that are free and not
//! committed: see `offers`.
//!
//! Zeroed metadata means "all free, nothing backed", so a start costs no time per frame.

mod offers;

use core::ops::Range;

use aerostat_abi::frame_state::{HugeFrameState, HugeFrameWord};
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use self::offers::Offers;
use super::bit_tree::BitTree;
use super::block::{Block, BlockSize, Contents};
use super::bump::BumpAllocator;
use super::compaction::policy::Occupancy;
use super::frame_cache::{BATCH, FrameCache};
use super::frame_set::FrameSet;
use crate::config::{EVICTION_RESERVE, MAX_READ_AHEAD, MAX_THREADS};

/// Most frames that all threads together may have drawn from commit charges and not used yet. Each
/// thread has at most a huge frame, or the pages of one read.
const MOST_IN_USE: u64 = HUGE_FRAMES * MAX_THREADS as u64;
const _: () = assert!(MAX_READ_AHEAD as u64 <= HUGE_FRAMES);

/// What a block is allocated for, and so which free frames are open to the allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The kernel's own needs (page tables, stacks): all that is not committed, the kernel's floor
    /// included.
    Kernel,
    /// Memory that was committed: the commit shrinks by the block. Where swap headroom backs commit
    /// charges, the last reserve is not open to it, because eviction needs that.
    Committed,
    /// Committed memory that is never moved, such as a stack; otherwise as [`Self::Committed`].
    CommittedPinned,
    /// Committed memory without which eviction, or a page that has its frame already, could not go
    /// on: any free frame.
    CommittedReserve,
    /// The compressed pool: any free frame. The pool can be emptied to disk, so it counts as swap
    /// headroom.
    CompressedPool,
    /// A page of a file. It can be dropped at any time, and so counts as swap headroom. The last
    /// reserve is not open to it.
    File,
    /// The balloon: what is neither committed nor the kernel's floor.
    Balloon,
    /// Something that the kernel can do without, such as a huge page in place of small ones: the
    /// same frames as for the balloon.
    Spare,
}

impl Purpose {
    /// Returns which huge frames its frames are taken from.
    const fn mobility(self) -> Mobility {
        if matches!(self, Self::Committed | Self::File) { Mobility::Movable } else { Mobility::Pinned }
    }
}

/// Whether the contents of a frame can be moved to another frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mobility {
    /// It is a page of a region, and its page table entry says where it is.
    Movable,
    Pinned,
}

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

/// The frame allocator of one machine.
#[derive(Debug)]
pub(crate) struct FrameAllocator {
    free: FrameSet,
    /// Wholly free huge frames that the host backs.
    backed: BitTree,
    /// Partly free huge frames, by the kind of frame that is taken from them. Vacated huge frames
    /// and the one for page tables are in neither list.
    movable: BitTree,
    pinned: BitTree,
    /// Vacated huge frames.
    vacated: usize,
    states: &'static [HugeFrameWord],
    offers: Offers,
    committed: u64,
    /// Frames drawn from commit charges that were uncharged since. When these frames are freed, no
    /// commit is charged for them.
    ended_in_use: u64,
    headroom: u64,
    /// Swap headroom that may have backed commit charges when it was removed.
    lost_headroom: u64,
    floor: u64,
    /// Frames in the balloon.
    ballooned: u64,
    /// The contents of memory that was never used.
    untouched: Contents,
    /// The huge frame that page tables are taken from; a number beyond the machine until one is
    /// needed.
    tables: usize,
}

impl FrameAllocator {
    /// Returns how many zeroed 64-bit words the metadata of `frames` frames needs.
    #[must_use]
    pub(crate) fn words(frames: FrameCount) -> usize {
        let huge = huge_frames(frames);
        FrameSet::words(huge) + 3 * BitTree::words(huge) + Offers::words(huge) + BumpAllocator::state_words(huge)
    }

    /// Creates an allocator that owns all frames below `frames` except those in `reserved`, and
    /// keeps `floor` frames for the kernel.
    pub(crate) fn new(
        frames: FrameCount,
        reserved: impl IntoIterator<Item = Range<FrameNumber>>,
        floor: FrameCount,
        bump: &mut BumpAllocator,
    ) -> Self {
        let huge = huge_frames(frames);
        let mut allocator = Self {
            free: FrameSet::new(huge, bump),
            backed: BitTree::new(huge, bump),
            movable: BitTree::new(huge, bump),
            pinned: BitTree::new(huge, bump),
            vacated: 0,
            states: bump.take_states(huge),
            offers: Offers::new(huge, bump),
            committed: 0,
            ended_in_use: 0,
            headroom: 0,
            lost_headroom: 0,
            floor: floor.0,
            ballooned: 0,
            untouched: Contents::Zero,
            tables: usize::MAX,
        };
        allocator.free.fill();
        let end = FrameNumber(huge as u64 * HUGE_FRAMES);
        allocator.exclude(FrameNumber(frames.0)..end);
        for range in reserved {
            allocator.exclude(range.start..range.end.min(end));
        }
        allocator
    }

    /// Declares that memory that was never used may hold anything, because firmware ran here
    /// before.
    pub(crate) fn distrust_untouched(&mut self) {
        self.untouched = Contents::Unknown;
    }

    /// Marks frames that must never be handed out.
    fn exclude(&mut self, range: Range<FrameNumber>) {
        let mut frame = range.start;
        while frame < range.end {
            let huge = to_usize(frame.0 / HUGE_FRAMES);
            let state = self.state(huge);
            if frame.is_aligned(9) && range.end.0 - frame.0 >= HUGE_FRAMES && self.free.remove_whole(huge).is_some() {
                self.set_state(huge, state.with_whole());
                frame = FrameNumber(frame.0 + HUGE_FRAMES);
                continue;
            }
            if self.free.remove_frame(frame) {
                self.set_state(huge, state.with_used(state.used() + 1).with_backing().with_pinned());
                self.arrange(huge);
            }
            frame = FrameNumber(frame.0 + 1);
        }
    }

    /// Charges `frames` frames to the commit.
    ///
    /// # Errors
    /// Returns how many frames are missing; nothing is charged then.
    pub(crate) fn charge_commit(&mut self, frames: FrameCount) -> Result<(), FrameCount> {
        while frames > self.available() {
            if !self.withdraw_offer() {
                return Err(frames.saturating_sub(self.available()));
            }
        }
        self.committed += frames.0;
        Ok(())
    }

    /// Uncharges what is left of a commit charge. Part of it may be drawn and not used yet: the
    /// region of a page that is being read may end meanwhile, and the frames are freed afterwards
    /// ([`Self::free_committed`]).
    pub(crate) fn uncharge_commit(&mut self, frames: FrameCount) {
        self.ended_in_use += frames.0.saturating_sub(self.committed);
        debug_assert!(self.ended_in_use <= MOST_IN_USE, "more commit charges ended than made");
        self.committed = self.committed.saturating_sub(frames.0);
    }

    /// Adds swap headroom: `frames` more pages can be evicted.
    pub(crate) fn add_headroom(&mut self, frames: FrameCount) {
        self.headroom += frames.0;
    }

    /// Removes swap headroom: `frames` pages can't be evicted after all. Commit charges that it
    /// backed stay.
    pub(crate) fn remove_headroom(&mut self, frames: FrameCount) {
        debug_assert!(frames.0 <= self.headroom, "more swap headroom removed than given");
        self.headroom = self.headroom.saturating_sub(frames.0);
        self.lost_headroom += frames.0;
        while self.committed > self.sure() + self.headroom && self.withdraw_offer() {}
    }

    /// Hands out a block, or `None` when no block of that size is open to that purpose.
    pub(crate) fn allocate(&mut self, size: BlockSize, purpose: Purpose) -> Option<Block> {
        if !self.secure(size.frames(), purpose) {
            return None;
        }
        let block = match size {
            BlockSize::Huge => self.take_huge(),
            BlockSize::Frame if purpose == Purpose::Balloon => self.take_backed_frame(),
            BlockSize::Frame => self.take_frame(purpose.mobility()),
        }?;
        self.account(size.frames(), purpose);
        Some(block)
    }

    /// Hands out a frame for a page table, or `None` when none is open to that purpose. Page tables
    /// share huge frames that nothing else is taken from as long as there are others. A host that
    /// shadows the guest's page tables (as KVM without hardware virtualization does) write-protects
    /// each table, and can then not map the huge frame around it in one piece.
    pub(crate) fn allocate_table(&mut self, purpose: Purpose) -> Option<Block> {
        if !self.secure(1, purpose) {
            return None;
        }
        let block = self.take_table()?;
        self.account(1, purpose);
        Some(block)
    }

    /// Updates the commit and the swap headroom for `frames` frames handed out for a purpose.
    fn account(&mut self, frames: u64, purpose: Purpose) {
        match purpose {
            Purpose::Committed | Purpose::CommittedPinned | Purpose::CommittedReserve => self.committed -= frames,
            Purpose::CompressedPool | Purpose::File => self.headroom += frames,
            Purpose::Balloon => self.ballooned += frames,
            Purpose::Kernel | Purpose::Spare => {}
        }
    }

    /// Hands out one particular block, if it is free and open to that purpose. The balloon claims
    /// in this way what the monitor counts as ballooned.
    pub(crate) fn claim_block(&mut self, first: FrameNumber, size: BlockSize, purpose: Purpose) -> Option<Block> {
        let huge = to_usize(first.0 / HUGE_FRAMES);
        let is_free = match size {
            BlockSize::Huge => self.free.contains_whole(huge),
            BlockSize::Frame => self.free.contains(first),
        };
        if !first.is_aligned(size.order()) || !is_free || !self.claim(huge) || !self.secure(size.frames(), purpose) {
            return None;
        }
        let block = match size {
            BlockSize::Huge => self.hand_out_whole(huge),
            BlockSize::Frame => self.hand_out_frame(first, purpose.mobility())?,
        };
        self.account(size.frames(), purpose);
        Some(block)
    }

    /// Frees a block that the host still backs.
    pub(crate) fn free(&mut self, block: Block) {
        self.put_back(block, Contents::Unknown);
    }

    /// Frees a frame that counted as swap headroom: one of the compressed pool, or one with a page
    /// of a file.
    pub(crate) fn free_in_headroom(&mut self, block: Block) {
        self.headroom -= block.size().frames();
        self.free(block);
    }

    /// Frees a block that was drawn from a commit charge and not used, or whose page was evicted.
    /// The commit is charged for it again.
    pub(crate) fn free_committed(&mut self, block: Block) {
        self.recharge_commit(block.size().frames());
        self.free(block);
    }

    /// Charges `frames` frames to the commit again, except for those whose commit charge was
    /// uncharged meanwhile.
    fn recharge_commit(&mut self, frames: u64) {
        let ended = self.ended_in_use.min(frames);
        self.ended_in_use -= ended;
        self.committed += frames - ended;
    }

    /// Returns the number of frames in the balloon, without those that the host has reclaimed and
    /// the driver has not collected.
    pub(crate) fn ballooned(&self) -> FrameCount {
        FrameCount(self.ballooned)
    }

    /// Frees a block of the balloon. Memory that the host had in between reads as zero and is not
    /// backed.
    pub(crate) fn deflate(&mut self, block: Block, contents: Contents) {
        self.ballooned -= block.size().frames();
        self.put_back(block, contents);
    }

    /// Fills a frame cache: first charges the commit to frames that it has without a commit charge,
    /// then adds a batch of frames with their commit charges.
    pub(crate) fn fill(&mut self, frame_cache: &mut FrameCache) {
        self.committed -= frame_cache.accept_commit_charges(self.committed);
        let wanted = (BATCH as u64).saturating_sub(frame_cache.len()).min(self.open_to(Purpose::Committed));
        for _ in 0..wanted {
            let Some(block) = self.take_frame(Mobility::Movable) else { return };
            self.committed -= 1;
            frame_cache.put_committed(block);
        }
    }

    /// Frees up to `count` frames of a frame cache, those that have been there longest, and moves
    /// back the commit charges for which the cache then has no frames.
    pub(crate) fn drain(&mut self, frame_cache: &mut FrameCache, count: usize) {
        let (blocks, commit_charges) = frame_cache.drain(count);
        for block in blocks {
            self.put_back(block, Contents::Unknown);
        }
        self.recharge_commit(commit_charges);
    }

    /// Returns whether the last reserve is in use, or removed swap headroom still backs commit
    /// charges. Nothing must be cached then, so that the allocator alone knows all free frames.
    pub(crate) fn is_tight(&self) -> bool {
        let free = self.sure();
        free < self.reserve() || self.committed > free + self.headroom
    }

    /// Returns the metrics.
    #[must_use]
    pub(crate) fn statistics(&self) -> FrameStatistics {
        self.statistics_with(0, 0)
    }

    /// Returns the metrics with so many more frames free and committed.
    pub(crate) fn statistics_with(&self, free: u64, committed: u64) -> FrameStatistics {
        let (free, committed) = (self.free.len() + free, self.committed + committed);
        let available = (free + self.headroom).saturating_sub(committed).saturating_sub(self.floor);
        FrameStatistics { free: FrameCount(free), committed: FrameCount(committed), available: FrameCount(available) }
    }

    /// Returns how many huge frames are wholly free.
    pub(crate) fn whole_huge_frames(&self) -> usize {
        self.free.count_whole()
    }

    /// Returns the number of frames in wholly free huge frames that the host backs.
    pub(crate) fn backed_free(&self) -> FrameCount {
        FrameCount(self.backed.count() as u64 * HUGE_FRAMES)
    }

    /// Counts the huge frames that pages could be moved out of, or into, by how many of their
    /// frames are in use.
    pub(crate) fn occupancy(&self) -> Occupancy {
        let mut occupancy = Occupancy::default();
        for huge in (0..self.free.huge_frames()).filter(|&huge| self.movable.contains(huge)) {
            occupancy.add(self.state(huge).used());
        }
        occupancy
    }

    /// Begins to vacate up to `wanted` huge frames, where the gain is worth the moves, and returns
    /// how many. No huge frame may be vacated at the call.
    pub(crate) fn vacate(&mut self, wanted: usize) -> usize {
        debug_assert_eq!(self.vacated, 0, "huge frames are vacated already");
        let mut victims = self.occupancy().victims(wanted);
        // From the top, so that memory fills from below.
        for huge in (0..self.free.huge_frames()).rev() {
            let state = self.state(huge);
            if self.movable.contains(huge) && victims.take(state.used()) {
                self.set_state(huge, state.with_vacated());
                self.arrange(huge);
            }
        }
        self.vacated
    }

    /// Returns whether huge frames are being vacated and not empty yet.
    pub(crate) fn is_vacating(&self) -> bool {
        self.vacated > 0
    }

    /// Returns whether the page in `frame` must be moved.
    pub(crate) fn is_vacated(&self, frame: FrameNumber) -> bool {
        self.state(to_usize(frame.0 / HUGE_FRAMES)).is_vacated()
    }

    /// Ends vacating. Pages that were not moved stay where they are.
    pub(crate) fn end_vacating(&mut self) {
        for huge in 0..self.free.huge_frames() {
            let state = self.state(huge);
            if state.is_vacated() {
                self.set_state(huge, state.without_vacated());
                self.arrange(huge);
            }
        }
    }

    /// Returns a frame to move a page into, out of a broken huge frame that keeps its pages. The
    /// frame that the page leaves makes up for it.
    pub(crate) fn replacement(&mut self) -> Option<Block> {
        let huge = self.movable.first()?;
        if self.secure(1, Purpose::Kernel) { self.take_from(huge, Mobility::Movable) } else { None }
    }

    /// Recounts everything: checks the free set against its summaries, every state word against the
    /// free set, and the commit against the free frames.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        self.free.validate()?;
        let mut vacated = 0;
        for huge in 0..self.states.len() {
            let state = self.state(huge);
            let expected = HUGE_FRAMES - self.free.count_in(huge);
            if self.offers.contains(huge) {
                if state.is_offered() == state.is_reclaimed() || !self.free.contains_whole(huge) {
                    return Err("an offer and its state disagree");
                }
                continue; // the monitor may change it at any moment
            }
            if state.is_offered() || state.is_reclaimed() != self.offers.awaits_collection(huge) {
                return Err("a huge frame is offered or taken that is not listed");
            }
            if state.is_reclaimed() {
                continue; // the driver gets it at its next poll
            }
            if u64::from(state.used()) != expected {
                return Err("a huge frame's state and the free frames disagree");
            }
            if self.backed.contains(huge) != (state.is_free() && state.is_backed()) {
                return Err("the free backed huge frames and their states disagree");
            }
            let is_partly_free = self.free.contains_part(huge) && !state.is_vacated() && huge != self.tables;
            let is_listed = (self.movable.contains(huge), self.pinned.contains(huge));
            if is_listed != (is_partly_free && !state.is_pinned(), is_partly_free && state.is_pinned()) {
                return Err("a partly free huge frame is not listed as its state says");
            }
            vacated += usize::from(state.is_vacated());
        }
        if vacated != self.vacated {
            return Err("the number of vacated huge frames is wrong");
        }
        if self.offers.frames() > self.free.len() || self.committed > self.sure() + self.headroom + self.lost_headroom {
            return Err("more frames are committed than are free or can be freed");
        }
        Ok(())
    }

    /// Returns the number of free frames that the host can't reclaim.
    fn sure(&self) -> u64 {
        self.free.len() - self.offers.frames()
    }

    /// Returns the number of frames that can be committed without withdrawing an offer.
    fn available(&self) -> FrameCount {
        FrameCount((self.sure() + self.headroom).saturating_sub(self.committed).saturating_sub(self.floor))
    }

    /// Returns the last reserve. Without swap headroom every commit charge has its frame, and no
    /// reserve is needed.
    fn reserve(&self) -> u64 {
        if self.headroom > 0 { EVICTION_RESERVE.0 } else { 0 }
    }

    /// Makes `frames` frames open to a purpose, by withdrawing offers if need be. Returns whether
    /// they are.
    fn secure(&mut self, frames: u64, purpose: Purpose) -> bool {
        while self.open_to(purpose) < frames {
            if !self.withdraw_offer() {
                return false;
            }
        }
        true
    }

    /// Returns how many frames would be open to a purpose if all offers were withdrawn and the host
    /// reclaimed none of them.
    pub(crate) fn within_reach_of(&self, purpose: Purpose) -> u64 {
        self.open_to(purpose) + self.offers.frames()
    }

    fn open_to(&self, purpose: Purpose) -> u64 {
        let free = self.sure();
        match purpose {
            Purpose::Kernel => free.saturating_sub(self.committed.saturating_sub(self.headroom)),
            Purpose::Committed | Purpose::CommittedPinned => self.committed.min(free.saturating_sub(self.reserve())),
            Purpose::CommittedReserve => self.committed.min(free),
            Purpose::CompressedPool => free,
            Purpose::File => free.saturating_sub(EVICTION_RESERVE.0),
            Purpose::Balloon | Purpose::Spare => self.available().0.min(free.saturating_sub(self.floor)),
        }
    }

    fn take_huge(&mut self) -> Option<Block> {
        let huge = self.claim_any()?;
        Some(self.hand_out_whole(huge))
    }

    /// Claims a wholly free huge frame that the host can't reclaim; one that the host backs, if
    /// there is any.
    fn claim_any(&mut self) -> Option<usize> {
        loop {
            let huge = self.backed.first().or_else(|| self.free.first_whole())?;
            if self.claim(huge) {
                return Some(huge);
            }
        }
    }

    fn hand_out_whole(&mut self, huge: usize) -> Block {
        let state = self.state(huge);
        let first = self.free.remove_whole(huge).expect("the caller found it wholly free");
        self.backed.remove(huge);
        self.set_state(huge, state.with_whole().with_backing());
        let contents = if state.is_backed() { Contents::Unknown } else { self.untouched };
        Block::from_number(first, BlockSize::Huge, contents)
    }

    /// Hands out one particular frame, out of a whole huge frame if need be.
    fn hand_out_frame(&mut self, frame: FrameNumber, mobility: Mobility) -> Option<Block> {
        let huge = to_usize(frame.0 / HUGE_FRAMES);
        if !self.free.remove_frame(frame) {
            return None;
        }
        self.backed.remove(huge);
        self.set_state(huge, self.state(huge).with_backing());
        self.note_reclaimed(huge, mobility);
        Some(Block::from_number(frame, BlockSize::Frame, Contents::Unknown))
    }

    /// Takes a frame for the balloon. A frame that the host does not back frees nothing there when
    /// it is ballooned. So an untouched huge frame is broken only when nothing else is free, and
    /// before that the frame is taken from a movable huge frame.
    fn take_backed_frame(&mut self) -> Option<Block> {
        let has_backed = self.pinned.first().is_some() || self.backed.first().is_some();
        match self.movable.first().filter(|_| !has_backed) {
            Some(huge) => self.take_from(huge, Mobility::Pinned),
            None => self.take_frame(Mobility::Pinned),
        }
    }

    fn take_frame(&mut self, mobility: Mobility) -> Option<Block> {
        let preferred = match mobility {
            Mobility::Movable => self.movable.first(),
            Mobility::Pinned => self.pinned.first(),
        };
        match preferred {
            Some(huge) => self.take_from(huge, mobility),
            None => self.break_whole(mobility).or_else(|| self.take_from(self.free.first_partial()?, mobility)),
        }
    }

    fn take_table(&mut self) -> Option<Block> {
        if let Some(block) = self.take_from(self.tables, Mobility::Pinned) {
            return Some(block);
        }
        let Some(block) = self.break_whole(Mobility::Pinned) else { return self.take_frame(Mobility::Pinned) };
        self.tables = to_usize(block.first().0 / HUGE_FRAMES);
        self.arrange(self.tables);
        Some(block)
    }

    /// Takes the lowest frame out of a partly free huge frame.
    fn take_from(&mut self, huge: usize, mobility: Mobility) -> Option<Block> {
        let frame = self.free.take_from(huge)?;
        self.note_reclaimed(huge, mobility);
        Some(Block::from_number(frame, BlockSize::Frame, Contents::Unknown))
    }

    /// Takes the first frame out of the next wholly free huge frame.
    fn break_whole(&mut self, mobility: Mobility) -> Option<Block> {
        let huge = self.claim_any()?;
        let state = self.state(huge);
        self.free.break_whole(huge);
        self.backed.remove(huge);
        self.set_state(huge, state.with_backing());
        let frame = self.free.take_from(huge)?;
        self.note_reclaimed(huge, mobility);
        let contents = if state.is_backed() { Contents::Unknown } else { self.untouched };
        Some(Block::from_number(frame, BlockSize::Frame, contents))
    }

    fn note_reclaimed(&mut self, huge: usize, mobility: Mobility) {
        let state = self.state(huge);
        let taken = state.with_used(state.used() + 1);
        self.set_state(huge, if mobility == Mobility::Pinned { taken.with_pinned() } else { taken });
        self.arrange(huge);
    }

    /// Puts a huge frame into the list that its free frames and its state call for.
    fn arrange(&mut self, huge: usize) {
        let state = self.state(huge);
        let is_open = self.free.contains_part(huge) && !state.is_vacated() && huge != self.tables;
        for (list, is_its) in [(&mut self.movable, !state.is_pinned()), (&mut self.pinned, state.is_pinned())] {
            if is_open && is_its {
                list.insert(huge);
            } else {
                list.remove(huge);
            }
        }
    }

    fn put_back(&mut self, block: Block, contents: Contents) {
        let size = block.size();
        let first = block.into_number();
        let huge = to_usize(first.0 / HUGE_FRAMES);
        let state = self.state(huge);
        let is_whole = self.free.insert(first, size);
        let mut state = match size {
            BlockSize::Huge => state.with_used(0),
            BlockSize::Frame => state.with_used(state.used() - 1),
        };
        if size == BlockSize::Huge && contents == Contents::Zero {
            state = state.without_backing();
        }
        if is_whole && state.is_backed() {
            self.backed.insert(huge);
        }
        self.set_state(huge, state);
        if size == BlockSize::Frame {
            self.arrange(huge);
        }
        if is_whole {
            self.offer(huge);
        }
    }

    fn state(&self, huge: usize) -> HugeFrameState {
        self.states[huge].load()
    }

    fn set_state(&mut self, huge: usize, state: HugeFrameState) {
        self.vacated -= usize::from(self.state(huge).is_vacated());
        self.vacated += usize::from(state.is_vacated());
        self.states[huge].store(state);
    }
}

fn huge_frames(frames: FrameCount) -> usize {
    to_usize(frames.0.div_ceil(HUGE_FRAMES))
}

#[cfg(test)]
mod tests;
