//! The allocator against a naive model that knows each frame's owner, and the commit charges it
//! makes, one by one.
#![allow(unsafe_code, reason = "makes an allocator of frames that do not exist")]

use std::ops::Range;

use aerostat_abi::metadata;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HugeFrameNumber, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Block, BlockSize, FrameAllocator, FrameStatistics, Purpose};
use crate::config::EVICTION_RESERVE;
use crate::mm::block::{Backing, Contents, HugeRun};
use crate::mm::bump::BumpAllocator;
use crate::mm::frame_set::FrameSet;
use crate::mm::testing::block;

impl FrameAllocator {
    /// An allocator with its accounts on the heap.
    pub(crate) fn leaked(frames: FrameCount, reserved: &[Range<FrameNumber>], floor: FrameCount) -> Self {
        let bump = &mut BumpAllocator::leaked(Self::words(frames));
        // SAFETY: the frames of a test have no other owner; those that are not memory are never
        // touched.
        unsafe { Self::new(frames, reserved.iter().cloned(), floor, bump) }
    }

    pub(crate) fn ended_in_use(&self) -> FrameCount {
        self.commit.ended_in_use()
    }

    pub(crate) fn is_free(&self, frame: FrameNumber) -> bool {
        self.placement.contains(frame, BlockSize::Frame)
    }
}

fn numbers(range: Range<u64>) -> Range<FrameNumber> {
    FrameNumber(range.start)..FrameNumber(range.end)
}

/// An allocator of `huge` huge frames, all free, without a floor.
fn allocator_of_huge_frames(huge: u64) -> FrameAllocator {
    FrameAllocator::leaked(FrameCount(huge * HUGE_FRAMES), &[], FrameCount::ZERO)
}

/// What an allocation gave, as numbers: nothing to lose when a test fails.
type Ballooned = (FrameNumber, Contents);

fn allocate(allocator: &mut FrameAllocator, size: BlockSize, purpose: Purpose) -> Option<Ballooned> {
    let block = allocator.allocate(size, purpose)?;
    let contents = block.contents();
    Some((block.into_number(), contents))
}

#[test]
fn a_fresh_machine_is_free_and_untouched_but_for_the_reserved_ranges() {
    let reserved = [numbers(3..1030), numbers(2000..2001)];
    let mut allocator = FrameAllocator::leaked(FrameCount(3000), &reserved, FrameCount(100));
    let free = FrameCount(3000 - 1027 - 1);
    let statistics = FrameStatistics { free, committed: FrameCount::ZERO, available: FrameCount(free.0 - 100) };
    assert_eq!(allocator.statistics(), statistics);
    assert_eq!(allocator.validate(), Ok(()));
    let is_reserved = |frame| (3..1030).contains(&frame) || frame == 2000 || frame >= 3000;
    assert!((0..4096).all(|frame| allocator.is_free(FrameNumber(frame)) != is_reserved(frame)));
    // Huge frames 0 to 2 and 5 are cut into by a range or by the end of memory, 3 holds frame 2000:
    // only 4 is whole.
    let huge = allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel);
    assert_eq!(huge, Some((FrameNumber(4 * HUGE_FRAMES), Contents::Zero)));
    assert_eq!(allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel), None);
}

/// Claims a run for the balloon; returns its numbers.
fn claim_run(allocator: &mut FrameAllocator, run: Range<u64>) -> Option<Range<HugeFrameNumber>> {
    allocator.claim_run(HugeFrameNumber(run.start)..HugeFrameNumber(run.end)).map(HugeRun::into_numbers)
}

#[test]
fn a_run_is_claimed_as_one_and_comes_back_in_parts() {
    let mut allocator = allocator_of_huge_frames(200);
    assert_eq!(claim_run(&mut allocator, 2..199), Some(HugeFrameNumber(2)..HugeFrameNumber(199)));
    assert_eq!((allocator.ballooned(), allocator.validate()), (FrameCount(197 * HUGE_FRAMES), Ok(())));
    for run in [1..3, 150..151, 198..200, 190..201] {
        assert_eq!(claim_run(&mut allocator, run), None, "not all of it is free");
    }
    allocator.deflate(block(FrameNumber(70 * HUGE_FRAMES), BlockSize::Huge), Backing::Unbacked);
    allocator.deflate(block(FrameNumber(3 * HUGE_FRAMES + 5), BlockSize::Frame), Backing::Unbacked);
    assert_eq!(allocator.statistics().free, FrameCount(4 * HUGE_FRAMES + 1));
    assert_eq!(allocator.validate(), Ok(()));
    assert_eq!(claim_run(&mut allocator, 70..71), Some(HugeFrameNumber(70)..HugeFrameNumber(71)));
    assert_eq!(claim_run(&mut allocator, 3..4), None);
    assert_eq!(allocator.validate(), Ok(()));
}

#[test]
fn a_run_leaves_the_floor_and_the_commit() {
    let mut allocator = FrameAllocator::leaked(FrameCount(4 * HUGE_FRAMES), &[], FrameCount(100));
    assert_eq!(claim_run(&mut allocator, 0..4), None);
    assert!(allocator.charge_commit(FrameCount(HUGE_FRAMES)).is_ok());
    assert_eq!(claim_run(&mut allocator, 1..4), None);
    assert!(claim_run(&mut allocator, 2..4).is_some());
}

#[test]
fn a_huge_frame_that_came_back_in_parts_may_hold_anything() {
    let mut allocator = allocator_of_huge_frames(1);
    assert!(claim_run(&mut allocator, 0..1).is_some());
    for frame in 0..HUGE_FRAMES {
        allocator.deflate(block(FrameNumber(frame), BlockSize::Frame), Backing::Unbacked);
        let (used, _) = allocate(&mut allocator, BlockSize::Frame, Purpose::Kernel).unwrap();
        allocator.free(block(used, BlockSize::Frame));
    }
    let whole = allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel);
    assert_eq!(whole, Some((FrameNumber(0), Contents::Unknown)));
}

#[test]
fn reserved_ranges_may_overlap_and_reach_beyond_the_end() {
    let reserved = [numbers(0..600), numbers(512..700), numbers(1024..u64::MAX), numbers(9..9)];
    let allocator = FrameAllocator::leaked(FrameCount(2048), &reserved, FrameCount::ZERO);
    assert_eq!(allocator.statistics().free, FrameCount(1024 - 700));
    assert_eq!(allocator.validate(), Ok(()));
}

#[test]
fn the_monitor_knows_what_the_metadata_takes() {
    for frames in [4096_u64, 4097, 1 << 15, (1 << 18) + 12_345, 1 << 22, 134_217_728] {
        let huge = to_usize(frames.div_ceil(HUGE_FRAMES));
        let words = FrameAllocator::words(FrameCount(frames)) + FrameSet::words(huge);
        assert_eq!(metadata::words(FrameNumber(frames)), words as u64, "{frames} frames");
    }
}

#[test]
fn metadata_costs_about_two_bits_a_frame() {
    let frames = FrameCount::from_mib(8 << 10);
    assert!(to_usize(frames.0).div_ceil(FrameAllocator::words(frames)) >= 50, "64 frames in little more than a word");
    let allocator = FrameAllocator::leaked(frames, &[], FrameCount::ZERO);
    assert_eq!(allocator.statistics().free, frames);
}

#[test]
fn huge_frames_that_the_host_backs_go_before_untouched_ones() {
    let mut allocator = allocator_of_huge_frames(4);
    let claimed = allocator.claim_block(FrameNumber(2 * HUGE_FRAMES), BlockSize::Huge, Purpose::Balloon).unwrap();
    allocator.free(claimed);
    let mut next = |size| allocate(&mut allocator, size, Purpose::Kernel).unwrap();
    assert_eq!(next(BlockSize::Huge), (FrameNumber(2 * HUGE_FRAMES), Contents::Unknown));
    assert_eq!(next(BlockSize::Huge), (FrameNumber(0), Contents::Zero));
}

#[test]
fn a_frame_breaks_a_backed_huge_frame_before_an_untouched_one() {
    let mut allocator = allocator_of_huge_frames(3);
    let claimed = allocator.claim_block(FrameNumber(HUGE_FRAMES), BlockSize::Huge, Purpose::Balloon).unwrap();
    allocator.free(claimed);
    let frame = allocate(&mut allocator, BlockSize::Frame, Purpose::Kernel);
    assert_eq!(frame, Some((FrameNumber(HUGE_FRAMES), Contents::Unknown)));
}

#[test]
fn memory_that_the_host_had_is_zero_and_unbacked_again() {
    let mut allocator = allocator_of_huge_frames(2);
    let (first, _) = allocate(&mut allocator, BlockSize::Huge, Purpose::Balloon).unwrap();
    allocator.free_reported(block(first, BlockSize::Huge));
    assert_eq!(allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel), Some((first, Contents::Zero)));
    allocator.free(block(first, BlockSize::Huge));
    assert_eq!(allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel), Some((first, Contents::Unknown)));
}

#[test]
fn memory_that_a_host_had_which_says_nothing_may_hold_anything() {
    let mut allocator = allocator_of_huge_frames(2);
    allocator.distrust_unbacked();
    let (first, contents) = allocate(&mut allocator, BlockSize::Huge, Purpose::Balloon).unwrap();
    assert_eq!(contents, Contents::Unknown);
    allocator.deflate(block(first, BlockSize::Huge), Backing::Unbacked);
    assert_eq!(allocator.backed_free(), FrameCount::ZERO);
    assert_eq!(allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel), Some((first, Contents::Unknown)));
}

#[test]
fn backed_memory_is_reported_once_as_far_as_it_can_be_spared() {
    let mut allocator = allocator_of_huge_frames(4);
    assert!(allocator.take_backed().is_none(), "the host backs nothing");
    let used = [0; 3].map(|_| allocator.allocate(BlockSize::Huge, Purpose::Kernel).unwrap());
    used.into_iter().for_each(|block| allocator.free(block));
    assert_eq!(allocator.charge_commit(FrameCount(2 * HUGE_FRAMES)), Ok(()));
    let reported = [allocator.take_backed().unwrap(), allocator.take_backed().unwrap()];
    assert!(allocator.take_backed().is_none(), "the rest is committed");
    assert_eq!(allocator.charge_commit(FrameCount(1)), Err(FrameCount(1)), "what is being reported is not free");
    reported.into_iter().for_each(|block| allocator.free_reported(block));
    assert_eq!((allocator.backed_free(), allocator.validate()), (FrameCount(HUGE_FRAMES), Ok(())));
    allocator.uncharge_commit(FrameCount(2 * HUGE_FRAMES));
    let last = allocator.take_backed().unwrap();
    allocator.free_reported(last);
    assert!(allocator.take_backed().is_none(), "all of it was reported");
    assert_eq!(allocator.statistics().free, FrameCount(4 * HUGE_FRAMES));
}

#[test]
fn free_memory_that_the_host_backs_is_counted_in_whole_huge_frames() {
    let mut allocator = allocator_of_huge_frames(3);
    assert_eq!(allocator.backed_free(), FrameCount::ZERO);
    let (first, _) = allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel).unwrap();
    allocator.free(block(first, BlockSize::Huge));
    assert_eq!(allocator.backed_free(), FrameCount(HUGE_FRAMES));
    let frame = allocator.allocate(BlockSize::Frame, Purpose::Kernel).unwrap();
    assert_eq!(allocator.backed_free(), FrameCount::ZERO, "a part of it is in use");
    allocator.free(frame);
    assert_eq!(allocator.backed_free(), FrameCount(HUGE_FRAMES));
    let (first, _) = allocate(&mut allocator, BlockSize::Huge, Purpose::Balloon).unwrap();
    allocator.free_reported(block(first, BlockSize::Huge));
    assert_eq!(allocator.backed_free(), FrameCount::ZERO, "the host has had it");
}

#[test]
fn only_what_is_wholly_free_can_be_claimed() {
    let mut allocator = FrameAllocator::leaked(FrameCount(2048), &[numbers(700..701)], FrameCount::ZERO);
    let mut claim =
        |frame| allocator.claim_block(FrameNumber(frame), BlockSize::Huge, Purpose::Balloon).map(Block::into_number);
    assert_eq!(claim(1), None, "not aligned");
    assert_eq!(claim(HUGE_FRAMES), None, "partly reserved");
    assert_eq!(claim(4 * HUGE_FRAMES), None, "behind the end");
    assert_eq!(claim(1 << 54), None, "no machine has it");
    assert_eq!(claim(2 * HUGE_FRAMES), Some(FrameNumber(2 * HUGE_FRAMES)));
    assert_eq!(claim(2 * HUGE_FRAMES), None, "claimed already");
}

#[test]
fn the_balloon_claims_single_frames_but_nothing_that_is_committed() {
    let mut allocator = FrameAllocator::leaked(FrameCount(2 * HUGE_FRAMES), &[numbers(3..4)], FrameCount(10));
    let claim = |allocator: &mut FrameAllocator, frame| {
        let claimed = allocator.claim_block(FrameNumber(frame), BlockSize::Frame, Purpose::Balloon);
        claimed.map(|block| block.into_number().0)
    };
    assert_eq!(claim(&mut allocator, 3), None, "reserved");
    assert_eq!(claim(&mut allocator, 4), Some(4));
    assert_eq!(claim(&mut allocator, 4), None, "claimed already");
    assert_eq!(claim(&mut allocator, HUGE_FRAMES + 7), Some(HUGE_FRAMES + 7), "out of a whole one");
    allocator.charge_commit(FrameCount(2 * HUGE_FRAMES - 3 - 10)).unwrap();
    assert_eq!(claim(&mut allocator, 5), None, "committed, or the kernel's");
    assert_eq!(allocator.validate(), Ok(()));
}

/// Inflating with what the host does not back frees nothing there.
#[test]
fn the_balloon_takes_what_the_host_backs_first_in_both_sizes() {
    let mut allocator = allocator_of_huge_frames(4);
    let claimed = allocator.claim_block(FrameNumber(2 * HUGE_FRAMES), BlockSize::Huge, Purpose::Balloon).unwrap();
    allocator.free(claimed);
    allocator.charge_commit(FrameCount(1)).unwrap();
    let (page, _) = allocate(&mut allocator, BlockSize::Frame, Purpose::Committed).unwrap();
    assert_eq!(page, FrameNumber(2 * HUGE_FRAMES), "a page has broken the one huge frame that is backed");
    let mut next = |size| allocate(&mut allocator, size, Purpose::Balloon).map(|(first, _)| first.0);
    let beside_the_page: Vec<_> = (1..HUGE_FRAMES).map(|frame| Some(2 * HUGE_FRAMES + frame)).collect();
    let taken: Vec<_> = (1..HUGE_FRAMES).map(|_| next(BlockSize::Frame)).collect();
    assert_eq!(taken, beside_the_page, "its other frames go before an untouched huge frame is broken");
    assert_eq!((next(BlockSize::Huge), next(BlockSize::Frame)), (Some(0), Some(HUGE_FRAMES)));
}

#[test]
fn a_refused_commit_charge_says_what_is_missing_and_leaves_the_floor() {
    let mut allocator = FrameAllocator::leaked(FrameCount(1024), &[], FrameCount(24));
    assert_eq!(allocator.charge_commit(FrameCount(1005)), Err(FrameCount(5)));
    assert_eq!(allocator.charge_commit(FrameCount(u64::MAX)), Err(FrameCount(u64::MAX - 1000)));
    assert_eq!(allocator.statistics().committed, FrameCount::ZERO);
    assert_eq!(allocator.charge_commit(FrameCount(1000)), Ok(()));
    assert_eq!(allocate(&mut allocator, BlockSize::Frame, Purpose::Balloon), None);
    for _ in 0..24 {
        assert!(allocate(&mut allocator, BlockSize::Frame, Purpose::Kernel).is_some(), "the floor is the kernel's");
    }
    assert_eq!(allocate(&mut allocator, BlockSize::Frame, Purpose::Kernel), None, "the rest is committed");
    for _ in 0..1000 {
        assert!(allocate(&mut allocator, BlockSize::Frame, Purpose::Committed).is_some());
    }
    assert_eq!(allocate(&mut allocator, BlockSize::Frame, Purpose::Committed), None);
    assert_eq!(allocator.validate(), Ok(()));
}

#[test]
fn nothing_is_put_into_a_huge_frame_that_is_vacated() {
    let mut allocator = allocator_of_huge_frames(4);
    allocator.charge_commit(FrameCount(2 * HUGE_FRAMES)).unwrap();
    for frame in 0..2 * HUGE_FRAMES {
        assert_eq!(allocate(&mut allocator, BlockSize::Frame, Purpose::Committed).unwrap().0, FrameNumber(frame));
    }
    for frame in (128..HUGE_FRAMES).chain(HUGE_FRAMES + 256..2 * HUGE_FRAMES) {
        allocator.free_committed(block(FrameNumber(frame), BlockSize::Frame));
    }
    assert_eq!(allocator.vacate(1), 1);
    assert!(allocator.is_vacated(FrameNumber(0)) && !allocator.is_vacated(FrameNumber(HUGE_FRAMES)));
    assert_eq!(allocator.validate(), Ok(()));
    for moved in 0..128 {
        let target = FrameNumber(HUGE_FRAMES + 256 + moved);
        assert_eq!(allocator.replacement().map(Block::into_number), Some(target));
        allocator.free(block(FrameNumber(moved), BlockSize::Frame));
    }
    assert_eq!((allocator.is_vacating(), allocator.whole_huge_frames()), (false, 3));
    allocator.end_vacating();
    assert_eq!(allocator.validate(), Ok(()));
}

#[cfg(debug_assertions)]
mod misuse {
    use super::{BlockSize, FrameCount, FrameNumber, Purpose, allocate, allocator_of_huge_frames, block};

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_frame_freed_twice() {
        let mut allocator = allocator_of_huge_frames(1);
        let (first, _) = allocate(&mut allocator, BlockSize::Frame, Purpose::Kernel).unwrap();
        allocator.free(block(first, BlockSize::Frame));
        allocator.free(block(first, BlockSize::Frame));
    }

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_huge_frame_freed_twice() {
        let mut allocator = allocator_of_huge_frames(2);
        let (first, _) = allocate(&mut allocator, BlockSize::Huge, Purpose::Kernel).unwrap();
        allocator.free(block(first, BlockSize::Huge));
        allocator.free_reported(block(first, BlockSize::Huge));
    }

    #[test]
    #[should_panic(expected = "dropped instead of freed")]
    fn a_dropped_block() {
        drop(block(FrameNumber(0), BlockSize::Huge));
    }

    #[test]
    #[should_panic(expected = "more commit charges ended than made")]
    fn a_commit_charge_uncharged_twice() {
        let mut allocator = allocator_of_huge_frames(1);
        allocator.charge_commit(FrameCount(5)).unwrap();
        allocator.uncharge_commit(FrameCount(5));
        allocator.uncharge_commit(FrameCount(1 << 20));
    }
}

const FRAMES: u64 = 3000;
const HUGE: u64 = FRAMES.div_ceil(HUGE_FRAMES);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Reserved, or not there at all.
    Elsewhere,
    Allocator,
    Caller,
}

/// Whether the purpose's frames lie among those that compaction moves.
fn is_movable(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::Committed | Purpose::File)
}

/// Every frame's owner and past.
struct Model {
    owners: Vec<Owner>,
    /// Counts the allocator's frames in each huge frame.
    free_in: Vec<u64>,
    /// Handed out since the start, or since the host last had it.
    is_touched: Vec<bool>,
    /// The same for a huge frame as a whole, as only whole ones go back to the host unforgotten.
    is_backed: Vec<bool>,
    /// A frame that can't be moved was handed out since the huge frame was last wholly free.
    is_pinned: Vec<bool>,
    committed: u64,
    headroom: u64,
    floor: u64,
    /// The huge frame that page tables come from.
    tables: Option<usize>,
    /// Huge frames below were not wholly free at the start.
    fixed_end: usize,
    held: Vec<(FrameNumber, BlockSize)>,
}

impl Model {
    fn new(reserved: &[Range<u64>], floor: u64) -> Self {
        let is_free = |frame| frame < FRAMES && !reserved.iter().any(|range| range.contains(&frame));
        let frames = HUGE * HUGE_FRAMES;
        let mut model = Self {
            owners: vec![Owner::Elsewhere; to_usize(frames)],
            free_in: vec![0; to_usize(HUGE)],
            is_touched: vec![false; to_usize(frames)],
            is_backed: vec![false; to_usize(HUGE)],
            is_pinned: vec![true; to_usize(HUGE)],
            committed: 0,
            headroom: 0,
            floor,
            tables: None,
            fixed_end: 0,
            held: Vec::new(),
        };
        for frame in (0..frames).filter(|&frame| is_free(frame)) {
            model.set_owner(to_usize(frame), Owner::Allocator);
        }
        model.fixed_end = (0..to_usize(HUGE)).take_while(|&huge| !model.is_whole(huge)).count();
        model
    }

    fn free(&self) -> u64 {
        self.free_in.iter().sum()
    }

    fn available(&self) -> u64 {
        (self.free() + self.headroom).saturating_sub(self.committed + self.floor)
    }

    fn statistics(&self) -> FrameStatistics {
        FrameStatistics {
            free: FrameCount(self.free()),
            committed: FrameCount(self.committed),
            available: FrameCount(self.available()),
        }
    }

    fn open_to(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Kernel => self.free().saturating_sub(self.committed.saturating_sub(self.headroom)),
            Purpose::Committed | Purpose::CommittedPinned if self.headroom == 0 => self.committed.min(self.free()),
            Purpose::Committed | Purpose::CommittedPinned => {
                self.committed.min(self.free().saturating_sub(EVICTION_RESERVE.0))
            }
            Purpose::CommittedReserve => self.committed.min(self.free()),
            Purpose::CompressedPool => self.free(),
            Purpose::File => self.free().saturating_sub(EVICTION_RESERVE.0),
            Purpose::Balloon | Purpose::Spare => self.available().min(self.free().saturating_sub(self.floor)),
        }
    }

    fn account(&mut self, frames: u64, purpose: Purpose) {
        match purpose {
            Purpose::Committed | Purpose::CommittedPinned | Purpose::CommittedReserve => self.committed -= frames,
            Purpose::CompressedPool | Purpose::File => self.headroom += frames,
            Purpose::Kernel | Purpose::Balloon | Purpose::Spare => {}
        }
    }

    fn is_whole(&self, huge: usize) -> bool {
        self.free_in[huge] == HUGE_FRAMES
    }

    /// The huge frame that goes next: the lowest backed one, or else the lowest.
    fn next_huge(&self) -> Option<usize> {
        let mut whole = (0..to_usize(HUGE)).filter(|&huge| self.is_whole(huge));
        whole.clone().find(|&huge| self.is_backed[huge]).or_else(|| whole.next())
    }

    fn is_broken(&self, huge: usize) -> bool {
        self.free_in[huge] > 0 && !self.is_whole(huge)
    }

    fn fixed(&self) -> Option<usize> {
        (0..self.fixed_end).find(|&huge| self.is_broken(huge))
    }

    /// The frame that goes next: the lowest of the lowest broken huge frame of its kind, or else of
    /// a fixed one, or else the first of the next huge one, or else the lowest of the lowest broken
    /// one, be it meant for page tables. The balloon takes from pages before it breaks what is
    /// untouched.
    fn next_frame(&self, purpose: Purpose) -> Option<usize> {
        let is_its = |&huge: &usize| {
            let is_meant = self.is_pinned[huge] != is_movable(purpose) && self.tables != Some(huge);
            self.is_broken(huge) && is_meant
        };
        let mut all = 0..to_usize(HUGE);
        let mine = all.clone().find(is_its).or_else(|| self.fixed());
        let has_backed = all.clone().any(|huge| self.is_whole(huge) && self.is_backed[huge]);
        if purpose == Purpose::Balloon && mine.is_none() && !has_backed {
            let of_pages = |&huge: &usize| self.is_broken(huge) && !self.is_pinned[huge] && self.tables != Some(huge);
            if let Some(huge) = all.clone().find(of_pages) {
                return self.lowest_in(huge);
            }
        }
        let any = |&huge: &usize| self.is_broken(huge);
        self.lowest_in(mine.or_else(|| self.next_huge()).or_else(|| all.find(any))?)
    }

    /// The frame that the next page table gets: the lowest of a fixed huge frame, or of the one
    /// meant for them, or of the next one.
    fn next_table(&mut self) -> Option<usize> {
        if let Some(huge) = self.fixed() {
            return self.lowest_in(huge);
        }
        if let Some(huge) = self.tables.filter(|&huge| self.is_broken(huge)) {
            return self.lowest_in(huge);
        }
        let Some(huge) = self.next_huge() else { return self.next_frame(Purpose::Kernel) };
        self.tables = Some(huge);
        self.lowest_in(huge)
    }

    fn lowest_in(&self, huge: usize) -> Option<usize> {
        let first = huge * to_usize(HUGE_FRAMES);
        (first..).find(|&frame| self.owners[frame] == Owner::Allocator)
    }

    fn set_owner(&mut self, frame: usize, owner: Owner) {
        let huge = frame / to_usize(HUGE_FRAMES);
        let free_in = &mut self.free_in[huge];
        *free_in -= u64::from(self.owners[frame] == Owner::Allocator);
        *free_in += u64::from(owner == Owner::Allocator);
        self.owners[frame] = owner;
        if self.is_whole(huge) {
            self.is_pinned[huge] = false;
        }
    }

    fn next(&self, size: BlockSize, purpose: Purpose) -> Option<FrameNumber> {
        if self.open_to(purpose) < size.frames() {
            return None;
        }
        let first = match size {
            BlockSize::Huge => self.next_huge()? * to_usize(HUGE_FRAMES),
            BlockSize::Frame => self.next_frame(purpose)?,
        };
        Some(FrameNumber(first as u64))
    }

    fn hand_out(&mut self, (first, contents): Ballooned, size: BlockSize) -> Result<(), TestCaseError> {
        prop_assert!(first.is_aligned(size.order()));
        for frame in to_usize(first.0)..to_usize(first.0 + size.frames()) {
            prop_assert_eq!(self.owners[frame], Owner::Allocator, "frame {} has two owners", frame);
            prop_assert!(contents == Contents::Unknown || !self.is_touched[frame], "frame {} is not zero", frame);
            self.set_owner(frame, Owner::Caller);
            self.is_touched[frame] = true;
        }
        self.is_backed[to_usize(first.0 / HUGE_FRAMES)] = true;
        self.held.push((first, size));
        Ok(())
    }

    /// Takes back one of the blocks that are held, if any.
    fn drain(&mut self, choice: usize) -> Option<(FrameNumber, BlockSize)> {
        let place = choice.checked_rem(self.held.len())?;
        let (first, size) = self.held.swap_remove(place);
        for frame in to_usize(first.0)..to_usize(first.0 + size.frames()) {
            self.set_owner(frame, Owner::Allocator);
        }
        Some((first, size))
    }

    fn forget_contents(&mut self, first: FrameNumber, size: BlockSize) {
        self.is_touched[to_usize(first.0)..to_usize(first.0 + size.frames())].fill(false);
        if size == BlockSize::Huge {
            self.is_backed[to_usize(first.0 / HUGE_FRAMES)] = false;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { size: BlockSize, purpose: Purpose, count: usize },
    AllocateTables { purpose: Purpose, count: usize },
    Claim { first: u64, size: BlockSize },
    CommitCharge(u64),
    UnchargeCommit(u64),
    Free { choice: usize, count: usize },
    FreeUnbacked { choice: usize, count: usize },
    FreeCommitted { choice: usize },
    AddHeadroom(u64),
    RemoveHeadroom(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let purpose = || {
        prop_oneof![
            2 => Just(Purpose::Kernel),
            2 => Just(Purpose::Committed),
            1 => Just(Purpose::CommittedPinned),
            1 => Just(Purpose::CommittedReserve),
            1 => Just(Purpose::CompressedPool),
            1 => Just(Purpose::File),
            2 => Just(Purpose::Balloon)
        ]
    };
    let choice = || 0_usize..10_000;
    let huge = purpose().prop_map(|purpose| Step::Allocate { size: BlockSize::Huge, purpose, count: 1 });
    let frames = (purpose(), prop_oneof![1_usize..20, 400_usize..1100]).prop_map(|(purpose, count)| Step::Allocate {
        size: BlockSize::Frame,
        purpose,
        count,
    });
    let tables = (purpose(), prop_oneof![1_usize..20, 400_usize..600])
        .prop_map(|(purpose, count)| Step::AllocateTables { purpose, count });
    prop_oneof![
        3 => huge,
        3 => frames,
        2 => tables,
        1 => (0..HUGE + 1).prop_map(|huge| Step::Claim { first: huge * HUGE_FRAMES, size: BlockSize::Huge }),
        1 => (0..FRAMES + 9).prop_map(|first| Step::Claim { first, size: BlockSize::Frame }),
        2 => (0_u64..1500).prop_map(Step::CommitCharge),
        1 => (0_u64..1500).prop_map(Step::UnchargeCommit),
        3 => (choice(), prop_oneof![1_usize..20, 400_usize..1100])
            .prop_map(|(choice, count)| Step::Free { choice, count }),
        2 => (choice(), prop_oneof![1_usize..20, 400_usize..1100])
            .prop_map(|(choice, count)| Step::FreeUnbacked { choice, count }),
        1 => choice().prop_map(|choice| Step::FreeCommitted { choice }),
        1 => (0_u64..700).prop_map(Step::AddHeadroom),
        1 => (0_u64..700).prop_map(Step::RemoveHeadroom),
    ]
}

fn apply(allocator: &mut FrameAllocator, model: &mut Model, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::Allocate { size, purpose, count } => {
            for _ in 0..count {
                let expected = model.next(size, purpose);
                let given = allocate(allocator, size, purpose);
                prop_assert_eq!(given.map(|(first, _)| first), expected, "for {:?}", purpose);
                let Some(given) = given else { break };
                model.account(size.frames(), purpose);
                model.hand_out(given, size)?;
                if size == BlockSize::Frame && !is_movable(purpose) {
                    model.is_pinned[to_usize(given.0.0 / HUGE_FRAMES)] = true;
                }
            }
        }
        Step::AllocateTables { purpose, count } => {
            for _ in 0..count {
                let expected = if model.open_to(purpose) > 0 { model.next_table() } else { None };
                let given = allocator
                    .allocate_table(purpose)
                    .map(|block| (block.first(), block.contents(), block.into_number()));
                prop_assert_eq!(given.map(|(first, ..)| to_usize(first.0)), expected, "for {:?}", purpose);
                let Some((first, contents, _)) = given else { break };
                model.account(1, purpose);
                model.hand_out((first, contents), BlockSize::Frame)?;
                model.is_pinned[to_usize(first.0 / HUGE_FRAMES)] = true;
            }
        }
        Step::Claim { first, size } => {
            let frames = to_usize(first)..to_usize(first + size.frames());
            let is_free = |frame: &Owner| *frame == Owner::Allocator;
            let is_open = model.open_to(Purpose::Balloon) >= size.frames();
            let is_there = model.owners.get(frames).is_some_and(|owners| owners.iter().all(is_free));
            let claimed = allocator.claim_block(FrameNumber(first), size, Purpose::Balloon);
            let given = claimed.map(|block| (block.first(), block.contents(), block.into_number()));
            prop_assert_eq!(given.map(|(first, ..)| first), (is_open && is_there).then_some(FrameNumber(first)));
            if let Some((first, contents, _)) = given {
                model.hand_out((first, contents), size)?;
                if size == BlockSize::Frame {
                    model.is_pinned[to_usize(first.0 / HUGE_FRAMES)] = true;
                }
            }
        }
        Step::CommitCharge(frames) => {
            let missing = frames.saturating_sub(model.available());
            let expected = if missing == 0 { Ok(()) } else { Err(FrameCount(missing)) };
            prop_assert_eq!(allocator.charge_commit(FrameCount(frames)), expected);
            model.committed += if missing == 0 { frames } else { 0 };
        }
        Step::UnchargeCommit(frames) => {
            let frames = frames.min(model.committed);
            allocator.uncharge_commit(FrameCount(frames));
            model.committed -= frames;
        }
        Step::Free { choice, count } => {
            for _ in 0..count {
                let Some((first, size)) = model.drain(choice) else { break };
                allocator.free(block(first, size));
            }
        }
        Step::FreeUnbacked { choice, count } => {
            for _ in 0..count {
                let Some((first, size)) = model.drain(choice) else { break };
                model.forget_contents(first, size);
                allocator.free_reported(block(first, size));
            }
        }
        Step::FreeCommitted { choice } => {
            if let Some((first, size)) = model.drain(choice) {
                model.committed += size.frames();
                allocator.free_committed(block(first, size));
            }
        }
        Step::AddHeadroom(frames) => {
            allocator.add_headroom(FrameCount(frames));
            model.headroom += frames;
        }
        Step::RemoveHeadroom(frames) => {
            let frames = frames.min(model.headroom);
            allocator.remove_headroom(FrameCount(frames));
            model.headroom -= frames;
        }
    }
    Ok(())
}

fn reserved_ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
    vec((0..FRAMES, 0_u64..700).prop_map(|(start, length)| start..start + length), 0..3)
}

proptest! {
    #[test]
    fn agrees_with_a_model_that_knows_every_owner(
        reserved in reserved_ranges(),
        floor in 0_u64..300,
        is_shared: bool,
        steps in vec(step(), 1..40),
    ) {
        let ranges: Vec<_> = reserved.iter().cloned().map(numbers).collect();
        let mut allocator = FrameAllocator::leaked(FrameCount(FRAMES), &ranges, FrameCount(floor));
        let mut model = Model::new(&reserved, floor);
        if is_shared {
            allocator.begin_offers(); // no monitor accepts them
        }
        for step in &steps {
            apply(&mut allocator, &mut model, step)?;
            prop_assert_eq!(allocator.validate(), Ok(()));
            prop_assert_eq!(allocator.statistics(), model.statistics());
        }
        for (frame, owner) in (0..).zip(&model.owners) {
            prop_assert_eq!(allocator.is_free(FrameNumber(frame)), *owner == Owner::Allocator);
        }
    }
}
