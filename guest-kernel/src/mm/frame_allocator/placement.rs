//! Placement: which frame is handed out next, so that huge frames stay whole and the guest does not
//! grow on the host without need.
//!
//! The free frames are a [`FrameSet`]; each huge frame also has a [`HugeFrameState`] word. Single
//! frames are taken from broken huge frames first, lowest address first. Huge frames that the host
//! backs already are taken before untouched ones, so what the balloon inflates with frees memory
//! there.
//!
//! Frames that can't be moved (page tables, stacks, the compressed pool, single frames in the
//! balloon) are taken from *pinned* huge frames, and those that compaction can move are taken from
//! the others. One kind is taken from the other kind's huge frames only when nothing else is free.
//! So huge frames can become whole again: while a movable one is *vacated*, its pages are moved out
//! and nothing new is allocated in it.
//!
//! The *fixed* huge frames at the bottom hold the image and low memory, so they never become whole.
//! What is left of them is taken for everything before a whole huge frame is broken: the monitor
//! backs them with small pages, so each frame costs the host a page, and not 2 MiB.
//!
//! How many frames may be handed out to whom is the business of [`commit`](super::commit), and
//! whether the host may reclaim a huge frame that is free is that of [`offers`](super::offers).

use core::ops::Range;

use aerostat_abi::frame_state::{AlreadyReclaimed, HugeFrameState, HugeFrameWord};
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, HugeFrameNumber, to_usize};

use super::Purpose;
use crate::mm::block::{Backing, Block, BlockSize, Contents, HugeRun};
use crate::mm::bump::BumpAllocator;
use crate::mm::compaction::policy::Occupancy;
use crate::mm::frame_set::FrameSet;
use crate::mm::huge_frame_set::HugeFrameSet;

/// Whether the contents of a frame can be moved to another frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mobility {
    /// It is a page of a region, and its page table entry says where it is.
    Movable,
    Pinned,
}

impl Mobility {
    /// Returns that of frames which are handed out for a purpose.
    pub(super) const fn of(purpose: Purpose) -> Self {
        if matches!(purpose, Purpose::Committed | Purpose::File) { Self::Movable } else { Self::Pinned }
    }
}

/// What a single frame is wanted for, as far as that decides where it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A page, or memory of the kernel.
    Memory(Mobility),
    /// A page table. A host that shadows the guest's page tables (as KVM without hardware
    /// virtualization does) write-protects each table, and can then not map the huge frame around
    /// it in one piece. So page tables are taken from the fixed huge frames, which are mapped page
    /// by page, and then share huge frames that nothing else is taken from as long as there are
    /// others.
    Table,
    /// The balloon. A frame that the host does not back frees nothing there when it is ballooned.
    Balloon,
}

/// The huge frame that a single frame is to be taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// One that is broken already.
    Partial(HugeFrameNumber),
    /// One that is wholly free, and must be claimed from the host first if it is offered.
    Whole(HugeFrameNumber),
}

/// The free frames, and what is known about each huge frame.
#[derive(Debug)]
pub(super) struct Placement {
    free: FrameSet,
    /// Wholly free huge frames that the host backs.
    backed: HugeFrameSet,
    /// Partly free huge frames, by the kind of frame that is taken from them. Vacated huge frames
    /// and the one for page tables are in neither set.
    movable: HugeFrameSet,
    pinned: HugeFrameSet,
    /// The number of vacated huge frames.
    vacated: usize,
    states: &'static [HugeFrameWord],
    /// What is in memory that the host does not back.
    unbacked: Contents,
    /// The end of the fixed huge frames.
    fixed_end: HugeFrameNumber,
    /// The huge frame that page tables are taken from.
    tables: Option<HugeFrameNumber>,
}

impl Placement {
    /// Returns how many zeroed words the metadata of `huge_frames` huge frames needs.
    pub(super) const fn words(huge_frames: usize) -> usize {
        FrameSet::words(huge_frames) + 3 * HugeFrameSet::words(huge_frames) + BumpAllocator::state_words(huge_frames)
    }

    /// Creates the placement of a machine of `huge_frames` huge frames, none of them free.
    pub(super) fn new(huge_frames: usize, bump: &mut BumpAllocator) -> Self {
        Self {
            free: FrameSet::new(huge_frames, bump),
            backed: HugeFrameSet::new(huge_frames, bump),
            movable: HugeFrameSet::new(huge_frames, bump),
            pinned: HugeFrameSet::new(huge_frames, bump),
            vacated: 0,
            states: bump.take_states(huge_frames),
            unbacked: Contents::Zero,
            fixed_end: HugeFrameNumber(0),
            tables: None,
        }
    }

    /// Makes all frames below `frames` free, except those in `reserved`, which are never handed
    /// out.
    ///
    /// # Safety
    /// The caller owns all those frames.
    #[allow(unsafe_code, reason = "takes the ownership of a whole machine")]
    pub(super) unsafe fn fill(&mut self, frames: FrameCount, reserved: impl IntoIterator<Item = Range<FrameNumber>>) {
        // SAFETY: the frames that the caller does not own are excluded below.
        unsafe { self.free.fill() };
        let end = HugeFrameNumber(self.states.len() as u64).first();
        self.exclude(FrameNumber(frames.0)..end);
        for range in reserved {
            self.exclude(range.start..range.end.min(end));
        }
        self.fixed_end = self.free.first_whole().unwrap_or(HugeFrameNumber(self.states.len() as u64));
    }

    /// Removes frames that have another owner, or are not there at all.
    fn exclude(&mut self, range: Range<FrameNumber>) {
        let mut frame = range.start;
        while frame < range.end {
            let huge = HugeFrameNumber::containing(frame);
            let state = self.state(huge);
            let is_whole = frame.is_aligned(HUGE_ORDER) && range.end.0 - frame.0 >= HUGE_FRAMES;
            if is_whole && let Some(block) = self.free.remove_whole(huge) {
                let _ = block.into_number();
                self.set_state(huge, state.with_whole());
                frame = FrameNumber(frame.0 + HUGE_FRAMES);
                continue;
            }
            if let Some(block) = self.free.remove_frame(frame) {
                let _ = block.into_number();
                self.set_state(huge, state.with_used(state.used() + 1).with_backing().with_pinned());
                self.arrange(huge);
            }
            frame = FrameNumber(frame.0 + 1);
        }
    }

    /// Notes that memory which the host does not back may hold anything.
    pub(super) fn distrust_unbacked(&mut self) {
        self.unbacked = Contents::Unknown;
    }

    /// Returns the number of free frames.
    pub(super) fn len(&self) -> u64 {
        self.free.len()
    }

    /// Returns whether all of a block is free.
    pub(super) fn contains(&self, first: FrameNumber, size: BlockSize) -> bool {
        match size {
            BlockSize::Huge => self.free.contains_whole(HugeFrameNumber::containing(first)),
            BlockSize::Frame => self.free.contains(first),
        }
    }

    /// Returns the lowest wholly free huge frame, from `from` on.
    pub(super) fn next_whole_from(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.free.next_whole(from)
    }

    /// Returns the lowest huge frame, from `from` on, that has free frames.
    pub(super) fn next_free(&self, from: HugeFrameNumber) -> Option<HugeFrameNumber> {
        self.free.next(from)
    }

    /// Returns whether a huge frame is wholly free.
    pub(super) fn contains_whole(&self, huge: HugeFrameNumber) -> bool {
        self.free.contains_whole(huge)
    }

    /// Returns all huge frames of the machine.
    pub(super) fn huge_frames(&self) -> impl DoubleEndedIterator<Item = HugeFrameNumber> + use<> {
        self.free.huge_frames()
    }

    /// Returns how many huge frames are wholly free.
    pub(super) fn count_whole(&self) -> usize {
        self.free.count_whole()
    }

    /// Returns how many huge frames are wholly free and backed by the host.
    pub(super) fn count_backed(&self) -> usize {
        self.backed.count()
    }

    /// Returns the lowest wholly free huge frame that the host backs.
    pub(super) fn first_backed(&self) -> Option<HugeFrameNumber> {
        self.backed.first()
    }

    /// Returns the wholly free huge frame to hand out next: one that the host backs, if there is
    /// any.
    pub(super) fn next_whole(&self) -> Option<HugeFrameNumber> {
        self.first_backed().or_else(|| self.free.first_whole())
    }

    /// Returns where to take a single frame.
    pub(super) fn source(&self, wanted: Use) -> Option<Source> {
        let preferred = match wanted {
            Use::Memory(Mobility::Movable) => self.movable.first().or_else(|| self.fixed()),
            Use::Memory(Mobility::Pinned) => self.pinned.first(),
            Use::Table => self.fixed().or_else(|| self.tables.filter(|&huge| self.free.contains_part(huge))),
            // An untouched huge frame is broken only when nothing else is free.
            Use::Balloon => {
                self.pinned.first().or_else(|| self.movable.first().filter(|_| self.backed.first().is_none()))
            }
        };
        let whole = || self.next_whole().map(Source::Whole);
        let other = || {
            let pinned = if wanted == Use::Table { self.pinned.first() } else { None };
            pinned.or_else(|| self.free.first_partial()).map(Source::Partial)
        };
        preferred.map(Source::Partial).or_else(whole).or_else(other)
    }

    /// Returns a fixed huge frame with free frames.
    fn fixed(&self) -> Option<HugeFrameNumber> {
        self.pinned.first().filter(|&huge| huge < self.fixed_end)
    }

    /// Hands out a huge frame, which is wholly free.
    pub(super) fn take_whole(&mut self, huge: HugeFrameNumber) -> Block {
        let state = self.state(huge);
        let block = self.free.remove_whole(huge).expect("the caller found it wholly free");
        self.backed.remove(huge);
        self.set_state(huge, state.with_whole().with_backing());
        block.with_contents(self.contents(state))
    }

    /// Hands out these huge frames, if all of them are wholly free and the host backs none. Their
    /// words stay zero, so that a run takes no time for each.
    pub(super) fn take_run(&mut self, run: Range<HugeFrameNumber>) -> Option<HugeRun> {
        let is_memory = run.end.index() <= self.states.len();
        if !is_memory || self.backed.uniform(&run) != Some(false) {
            return None;
        }
        self.free.remove_run(run)
    }

    /// Breaks a huge frame, which is wholly free, and hands out its first frame.
    pub(super) fn break_whole(&mut self, huge: HugeFrameNumber, wanted: Use) -> Block {
        let state = self.state(huge);
        self.free.break_whole(huge);
        self.backed.remove(huge);
        self.set_state(huge, state.with_backing());
        if wanted == Use::Table {
            self.tables = Some(huge);
        }
        let block = self.take_from(huge, wanted.mobility()).expect("the caller found it wholly free");
        block.with_contents(self.contents(state))
    }

    /// Takes the lowest frame out of a partly free huge frame.
    pub(super) fn take_from(&mut self, huge: HugeFrameNumber, mobility: Mobility) -> Option<Block> {
        let block = self.free.take_from(huge)?;
        self.note_used(huge, mobility);
        Some(block)
    }

    /// Hands out one particular frame, out of a whole huge frame if need be.
    pub(super) fn take_frame(&mut self, frame: FrameNumber, mobility: Mobility) -> Option<Block> {
        let block = self.free.remove_frame(frame)?;
        let huge = HugeFrameNumber::containing(frame);
        self.backed.remove(huge);
        self.set_state(huge, self.state(huge).with_backing());
        self.note_used(huge, mobility);
        Some(block)
    }

    /// Makes a block free. Returns its huge frame if that is wholly free now.
    pub(super) fn put_back(&mut self, block: Block, backing: Backing) -> Option<HugeFrameNumber> {
        let size = block.size();
        let huge = HugeFrameNumber::containing(block.first());
        let state = self.state_in_use(huge);
        let is_whole = self.free.insert(block);
        let mut state = match size {
            BlockSize::Huge => state.with_used(0),
            // Frames of it may be used, one by one, before it is whole again.
            BlockSize::Frame => state.with_used(state.used() - 1).with_backing(),
        };
        if size == BlockSize::Huge && backing == Backing::Unbacked {
            state = state.without_backing();
        }
        if is_whole && state.is_backed() {
            self.backed.insert(huge);
        }
        self.set_state(huge, state);
        if size == BlockSize::Frame {
            self.arrange(huge);
        }
        is_whole.then_some(huge)
    }

    /// Returns the state of a huge frame of which frames are in use.
    fn state_in_use(&self, huge: HugeFrameNumber) -> HugeFrameState {
        let state = self.state(huge);
        // It was taken with a run.
        if state.is_free() { state.with_whole() } else { state }
    }

    /// Returns what is in memory that was handed out when its huge frame was in this state.
    fn contents(&self, state: HugeFrameState) -> Contents {
        if state.is_backed() { Contents::Unknown } else { self.unbacked }
    }

    fn note_used(&mut self, huge: HugeFrameNumber, mobility: Mobility) {
        let state = self.state(huge);
        let used = state.with_used(state.used() + 1);
        self.set_state(huge, if mobility == Mobility::Pinned { used.with_pinned() } else { used });
        self.arrange(huge);
    }

    /// Puts a huge frame into the set that its free frames and its state call for.
    fn arrange(&mut self, huge: HugeFrameNumber) {
        let state = self.state(huge);
        let is_open = self.is_open(huge, state);
        for (set, is_its) in [(&mut self.movable, !state.is_pinned()), (&mut self.pinned, state.is_pinned())] {
            if is_open && is_its {
                set.insert(huge);
            } else {
                set.remove(huge);
            }
        }
    }

    /// Returns whether frames for all kinds of memory are taken from a huge frame in this state.
    fn is_open(&self, huge: HugeFrameNumber, state: HugeFrameState) -> bool {
        self.free.contains_part(huge) && !state.is_vacated() && self.tables != Some(huge)
    }
}

impl Use {
    pub(super) const fn mobility(self) -> Mobility {
        match self {
            Self::Memory(mobility) => mobility,
            Self::Table | Self::Balloon => Mobility::Pinned,
        }
    }
}

/// The words that the monitor may see.
impl Placement {
    /// Returns the state words of all huge frames.
    pub(super) fn states(&self) -> &'static [HugeFrameWord] {
        self.states
    }

    pub(super) fn state(&self, huge: HugeFrameNumber) -> HugeFrameState {
        self.states[huge.index()].load()
    }

    pub(super) fn set_state(&mut self, huge: HugeFrameNumber, state: HugeFrameState) {
        self.vacated -= usize::from(self.state(huge).is_vacated());
        self.vacated += usize::from(state.is_vacated());
        self.states[huge.index()].store(state);
    }

    /// Withdraws the offer of a huge frame.
    ///
    /// # Errors
    /// As [`HugeFrameWord::withdraw`].
    pub(super) fn withdraw(&self, huge: HugeFrameNumber) -> Result<(), AlreadyReclaimed> {
        self.states[huge.index()].withdraw()
    }

    /// Removes a huge frame that the host has reclaimed from the free frames.
    pub(super) fn lose(&mut self, huge: HugeFrameNumber) -> Option<Block> {
        self.backed.remove(huge);
        self.free.remove_whole(huge)
    }
}

/// Moving pages out of huge frames.
impl Placement {
    /// Counts the huge frames that pages could be moved out of, or into, by how many of their
    /// frames are in use.
    pub(super) fn occupancy(&self) -> Occupancy {
        let mut occupancy = Occupancy::default();
        for huge in self.movable.iter() {
            occupancy.add(self.state(huge).used());
        }
        occupancy
    }

    /// Begins to vacate up to `wanted` huge frames, where the gain is worth the moves, and returns
    /// how many. No huge frame may be vacated at the call.
    pub(super) fn vacate(&mut self, wanted: usize) -> usize {
        debug_assert_eq!(self.vacated, 0, "huge frames are vacated already");
        let mut victims = self.occupancy().victims(wanted);
        // From the top, so that memory fills from below.
        for huge in self.huge_frames().rev() {
            let state = self.state(huge);
            if self.movable.contains(huge) && victims.take(state.used()) {
                self.set_state(huge, state.with_vacated());
                self.arrange(huge);
            }
        }
        self.vacated
    }

    /// Returns the number of huge frames that are being vacated and not empty yet.
    pub(super) fn vacated(&self) -> usize {
        self.vacated
    }

    /// Ends vacating. Pages that were not moved stay where they are.
    pub(super) fn end_vacating(&mut self) {
        for huge in self.huge_frames() {
            let state = self.state(huge);
            if state.is_vacated() {
                self.set_state(huge, state.without_vacated());
                self.arrange(huge);
            }
        }
    }

    /// Takes a frame to move a page into, out of a broken huge frame that keeps its pages.
    pub(super) fn take_replacement(&mut self) -> Option<Block> {
        self.take_from(self.movable.first()?, Mobility::Movable)
    }

    /// Returns whether there is a frame to move a page into.
    pub(super) fn has_replacement(&self) -> bool {
        self.movable.first().is_some()
    }
}

/// The check of all that is kept about the free frames.
impl Placement {
    /// Recounts the free frames and the vacated huge frames.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        self.free.validate()?;
        let vacated = self.huge_frames().filter(|&huge| self.state(huge).is_vacated()).count();
        if vacated == self.vacated { Ok(()) } else { Err("the number of vacated huge frames is wrong") }
    }

    /// Checks the state word of a huge frame that the host has neither been offered nor reclaimed,
    /// and the sets that it is in.
    ///
    /// # Errors
    /// Returns the first disagreement, as a sentence.
    pub(super) fn validate_huge_frame(&self, huge: HugeFrameNumber) -> Result<(), &'static str> {
        let state = self.state(huge);
        let used = HUGE_FRAMES - self.free.count_in(huge);
        let is_of_a_run = used == HUGE_FRAMES && state == HugeFrameState::default();
        if u64::from(state.used()) != used && !is_of_a_run {
            return Err("a huge frame's state and the free frames disagree");
        }
        if self.backed.contains(huge) != (state.is_free() && state.is_backed()) {
            return Err("the free backed huge frames and their states disagree");
        }
        let is_open = self.is_open(huge, state);
        let is_in = (self.movable.contains(huge), self.pinned.contains(huge));
        if is_in != (is_open && !state.is_pinned(), is_open && state.is_pinned()) {
            return Err("a partly free huge frame is not listed as its state says");
        }
        Ok(())
    }
}

/// Returns how many huge frames hold `frames` frames.
pub(super) fn huge_frames(frames: FrameCount) -> usize {
    to_usize(frames.0.div_ceil(HUGE_FRAMES))
}
