//! What an application says about its memory, on a machine of ordinary memory with a compressed
//! pool and a disk.

use std::collections::BTreeMap;
use std::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_BYTES, HUGE_FRAMES};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{discard, discard_lazily, prefetch, protect, statistics};
use crate::layout::APP_REGIONS;
use crate::mm::address_space::{Region, Violation};
use crate::mm::block::{Block, BlockSize};
use crate::mm::fault::FaultError;
use crate::mm::frame_allocator::Purpose;
use crate::mm::page_table::{Access, Slot};
use crate::mm::reclaim::swap::slow_disk::SlowDisk;
use crate::mm::reclaim::tests::swap_disk::{
    assert_nothing_is_kept, bound_compressed_pool, half_noise, machine, noise, pages, run_batch,
};
use crate::mm::reclaim::{self, reclaim};
use crate::mm::testing::{TestMachine, block};
use crate::mm::{FRAMES, SPACE, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);

/// Creates a region of so many pages, each of them filled with noise of its own.
fn written_region(machine: &TestMachine, count: u64) -> u64 {
    let start = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
    for page in pages(start, count) {
        write_noise(machine, page, 0);
    }
    start
}

fn write_noise(machine: &TestMachine, page: u64, seed: u64) {
    machine.write(page, 0).unwrap();
    machine.fill(page, noise(page, seed));
}

/// Pages of the region at `start`, as addresses.
fn part(start: u64, pages: Range<u64>) -> Range<u64> {
    start + pages.start * FRAME_BYTES..start + pages.end * FRAME_BYTES
}

/// Returns what a read of the page's first word finds.
fn read(machine: &TestMachine, page: u64) -> u64 {
    machine.touch(page).unwrap();
    machine.word(page)
}

fn slot_at(address: u64) -> Slot {
    SPACE.lock().tables().unwrap().slot(address)
}

#[test]
fn discarded_memory_is_free_at_once_committed_again_and_zero() {
    let (machine, _) = machine(12, 1024);
    let start = written_region(&machine, 2 * HUGE_FRAMES + 10);
    let full = machine.statistics();
    discard(&part(start, 0..2 * HUGE_FRAMES + 10));
    let after = machine.statistics();
    let frames = 2 * HUGE_FRAMES + 10 + 1; // with the last slot's table
    assert_eq!((after.free.0, after.committed.0), (full.free.0 + frames, full.committed.0 + frames));
    assert_eq!(machine.drawn(start), 0);
    for page in pages(start, 2 * HUGE_FRAMES + 10) {
        assert_eq!(read(&machine, page), 0);
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_huge_page_is_split_where_the_range_ends() {
    let (machine, _) = machine(12, 1024);
    let start = written_region(&machine, 3 * HUGE_FRAMES);
    discard(&part(start, 500..2 * HUGE_FRAMES + 3));
    assert_eq!([0, 1, 2].map(|slot| slot_at(start + slot * HUGE_BYTES)), [Slot::Table, Slot::Empty, Slot::Table]);
    assert_eq!(machine.drawn(start), 500 + HUGE_FRAMES - 3 + 2);
    for (number, page) in (0..).zip(pages(start, 3 * HUGE_FRAMES)) {
        let is_kept = !(500..2 * HUGE_FRAMES + 3).contains(&number);
        assert_eq!(read(&machine, page), if is_kept { noise(page, 0)(0) } else { 0 }, "page {number}");
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_huge_page_that_cannot_be_split_is_zeroed_in_part() {
    let (machine, _) = machine(6, 1024);
    let start = written_region(&machine, HUGE_FRAMES);
    let compressed_pool = || FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool).map(Block::into_number);
    let taken: Vec<_> = std::iter::from_fn(compressed_pool).collect();
    discard(&part(start, 100..200));
    assert_eq!(slot_at(start), Slot::Huge);
    for (number, page) in (0..).zip(pages(start, HUGE_FRAMES)) {
        assert_eq!(read(&machine, page), if (100..200).contains(&number) { 0 } else { noise(page, 0)(0) });
    }
    for frame in taken {
        FRAMES.free_in_headroom(block(frame, BlockSize::Frame));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn evicted_pages_are_forgotten_wherever_they_are() {
    let (machine, _) = machine(12, 1024);
    bound_compressed_pool(8);
    let start = written_region(&machine, 100);
    for page in pages(start, 100).skip(50) {
        machine.fill(page, half_noise(page, 1));
    }
    reclaim(EVERYTHING);
    let evicted = statistics(start);
    assert_eq!((evicted.resident, evicted.compressed + evicted.on_disk), (0, 100));
    assert!(evicted.on_disk > 50 && reclaim::statistics().disk.used_slots > 50);
    discard(&part(start, 0..100));
    assert_eq!(reclaim::statistics().evicted_pages(), FrameCount::ZERO);
    assert_eq!(reclaim::statistics().disk.used_slots, 0);
    assert!(pages(start, 100).all(|page| read(&machine, page) == 0));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn pages_on_their_way_to_disk_are_cancelled() {
    for lazily in [false, true] {
        let (machine, disk) = machine(12, 1024);
        let start = written_region(&machine, 64);
        while run_batch() < 64 {}
        let half = part(start, 0..32);
        if lazily {
            discard_lazily(&half);
        } else {
            discard(&half);
        }
        disk.finish_one();
        reclaim(EVERYTHING);
        assert_eq!(statistics(start).on_disk, 32, "the others");
        for (number, page) in (0..).zip(pages(start, 64)) {
            assert_eq!(read(&machine, page), if number < 32 { 0 } else { noise(page, 0)(0) });
        }
        unmap_region(start);
        assert_nothing_is_kept(&machine);
    }
}

#[test]
fn what_is_discarded_lazily_is_dropped_instead_of_evicted_unless_it_is_written() {
    let (machine, _) = machine(12, 1024);
    let start = written_region(&machine, 100);
    let in_use = machine.statistics();
    discard_lazily(&part(start, 0..100));
    assert_eq!(machine.statistics(), in_use, "it costs and frees nothing");
    assert!(pages(start, 100).all(|page| read(&machine, page) == noise(page, 0)(0)), "memory is not short");
    for page in pages(start, 100).skip(90) {
        write_noise(&machine, page, 2);
    }
    reclaim(EVERYTHING);
    assert_eq!((reclaim::statistics().discards, statistics(start).on_disk), (90, 10));
    for (number, page) in (0..).zip(pages(start, 100)) {
        assert_eq!(read(&machine, page), if number < 90 { 0 } else { noise(page, 2)(0) });
    }
    // Once written, they are like any other.
    reclaim(EVERYTHING);
    assert!(pages(start, 100).skip(90).all(|page| read(&machine, page) == noise(page, 2)(0)));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_huge_page_that_is_discarded_lazily_is_dropped_whole_or_evicted_whole() {
    let (machine, _) = machine(12, 2048);
    let start = written_region(&machine, 2 * HUGE_FRAMES);
    discard_lazily(&part(start, 0..2 * HUGE_FRAMES));
    machine.write(start + HUGE_BYTES, 7).unwrap();
    let before = machine.statistics();
    reclaim(EVERYTHING);
    assert_eq!(slot_at(start), Slot::Empty, "not even a table was needed");
    assert_eq!((reclaim::statistics().discards, statistics(start).on_disk), (HUGE_FRAMES, HUGE_FRAMES));
    assert!(machine.statistics().free.0 >= before.free.0 + 2 * HUGE_FRAMES - 2);
    assert_eq!(read(&machine, start), 0);
    assert_eq!(read(&machine, start + HUGE_BYTES), 7);
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_huge_page_is_split_where_the_lazy_range_ends() {
    let (machine, _) = machine(12, 2048);
    let start = written_region(&machine, HUGE_FRAMES);
    discard_lazily(&part(start, 100..HUGE_FRAMES));
    assert_eq!(slot_at(start), Slot::Table);
    reclaim(EVERYTHING);
    assert_eq!((reclaim::statistics().discards, statistics(start).on_disk), (HUGE_FRAMES - 100, 100));
    assert!(pages(start, 100).all(|page| read(&machine, page) == noise(page, 0)(0)));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn where_nothing_is_evicted_lazily_means_at_once() {
    let machine = TestMachine::start(8);
    let start = written_region(&machine, 40);
    let free = machine.statistics().free;
    discard_lazily(&part(start, 0..40));
    assert_eq!(machine.statistics().free.0, free.0 + 41);
}

#[test]
fn prefetch_brings_in_what_was_evicted_and_what_was_never_there() {
    let (machine, _) = machine(12, 1024);
    let start = written_region(&machine, 60);
    reclaim(EVERYTHING);
    let other = map_region(APP_REGIONS, HUGE_BYTES + 100 * FRAME_BYTES).unwrap();
    assert_eq!(prefetch(&part(start, 5..60)), 55);
    assert_eq!(prefetch(&part(start, 0..60)), 5);
    assert_eq!(prefetch(&part(other, 0..HUGE_FRAMES + 100)), HUGE_FRAMES + 100);
    assert_eq!(prefetch(&part(other, 0..HUGE_FRAMES + 100)), 0, "nothing is left to do");
    assert!(pages(start, 60).all(|page| machine.frame_at(page).is_some() && machine.word(page) == noise(page, 0)(0)));
    let (restored, fresh) = (statistics(start), statistics(other));
    assert_eq!((restored.resident, restored.restores), (60, 60));
    assert_eq!((fresh.resident, fresh.huge, fresh.faults), (HUGE_FRAMES + 100, HUGE_FRAMES, 0));
    assert_eq!(reclaim::statistics().refaults, 0, "no thread has touched them");
    for region in [start, other] {
        unmap_region(region);
    }
    assert_nothing_is_kept(&machine);
}

#[test]
fn prefetch_stops_before_it_evicts_other_pages() {
    let (machine, _) = machine(8, 8192);
    let evicted = written_region(&machine, 500);
    reclaim(EVERYTHING);
    let small = map_region(APP_REGIONS, 500 * FRAME_BYTES).unwrap();
    assert_eq!(prefetch(&part(small, 0..500)), 500, "no whole huge frame is needed for these");
    let start = map_region(APP_REGIONS, 8 * HUGE_BYTES).unwrap();
    let brought = prefetch(&part(start, 0..8 * HUGE_FRAMES));
    assert!((HUGE_FRAMES..8 * HUGE_FRAMES).contains(&brought), "{brought} pages");
    let low = FRAMES.watermarks().low;
    assert!(machine.statistics().free.0 + 3 >= low.0, "the tables aside");
    assert_eq!(prefetch(&part(start, 7 * HUGE_FRAMES..8 * HUGE_FRAMES)), 0);
    assert_eq!(prefetch(&part(evicted, 0..500)), 0);
    assert_eq!((reclaim::statistics().evictions, statistics(evicted).on_disk), (500, 500));
}

#[test]
fn protection_survives_eviction_return_split_and_first_touch() {
    let (machine, _) = machine(12, 2048);
    let start = written_region(&machine, HUGE_FRAMES);
    let more = map_region(APP_REGIONS, HUGE_BYTES + 50 * FRAME_BYTES).unwrap();
    let denied = |region: u64, end: u64| Err(FaultError::Violation(Violation::ReadOnly { start: region, end }));
    let more_end = more + HUGE_BYTES + 50 * FRAME_BYTES;
    protect(start, Access::ReadOnly);
    protect(more, Access::ReadOnly);
    assert_eq!(machine.write(start, 1), denied(start, start + HUGE_BYTES));
    assert_eq!(machine.write(more, 1), denied(more, more_end), "never touched");
    reclaim(EVERYTHING);
    assert_eq!(statistics(start).on_disk, HUGE_FRAMES);
    assert_eq!(machine.write(start, 1), denied(start, start + HUGE_BYTES), "evicted");
    for page in pages(start, HUGE_FRAMES) {
        assert_eq!(read(&machine, page), noise(page, 0)(0));
        assert_eq!(machine.write(page, 1), denied(start, start + HUGE_BYTES), "back");
    }
    for page in pages(more, HUGE_FRAMES + 50) {
        assert_eq!(read(&machine, page), 0);
        assert_eq!(machine.write(page, 1), denied(more, more_end), "fresh");
    }
    protect(start, Access::ReadWrite);
    for page in pages(start, HUGE_FRAMES) {
        machine.write(page, 1).unwrap();
    }
    discard(&part(more, 3..9)); // splits the huge page
    assert_eq!(slot_at(more), Slot::Table);
    assert_eq!(machine.write(more, 1), denied(more, more_end));
}

#[test]
fn a_page_that_is_protected_on_its_way_out_stays_protected() {
    let (machine, _) = machine(12, 1024);
    let start = written_region(&machine, 64);
    while run_batch() < 64 {}
    protect(start, Access::ReadOnly);
    assert_eq!(read(&machine, start), noise(start, 0)(0));
    assert!(machine.write(start, 1).is_err());
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[derive(Clone, Debug)]
enum Step {
    Reclaim(u64),
    Batch,
    Disk,
    Read(u64),
    Write { pages: Range<u64>, seed: u64 },
    Discard(Range<u64>),
    DiscardLazily(Range<u64>),
    Prefetch(Range<u64>),
    Protect(Access),
    Remap,
}

const PAGES: u64 = 1100;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..PAGES, 1_u64..700).prop_map(|(start, count)| start..(start + count).min(PAGES));
    let small = || (0..PAGES, 1_u64..80).prop_map(|(start, count)| start..(start + count).min(PAGES));
    let access =
        prop_oneof![3 => proptest::strategy::Just(Access::ReadWrite), 1 => proptest::strategy::Just(Access::ReadOnly)];
    let step = prop_oneof![
        3 => (0_u64..700).prop_map(Step::Reclaim),
        3 => proptest::strategy::Just(Step::Batch),
        2 => proptest::strategy::Just(Step::Disk),
        3 => (0..PAGES).prop_map(Step::Read),
        5 => (small(), any::<u64>()).prop_map(|(pages, seed)| Step::Write { pages, seed }),
        2 => range().prop_map(Step::Discard),
        2 => range().prop_map(Step::DiscardLazily),
        2 => range().prop_map(Step::Prefetch),
        1 => access.prop_map(Step::Protect),
        1 => proptest::strategy::Just(Step::Remap),
    ];
    vec(step, 1..80)
}

/// What a page should read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Word(u64),
    /// This, or zero.
    WordOrZero(u64),
}

struct Model {
    start: u64,
    access: Access,
    pages: BTreeMap<u64, Expected>,
}

impl Model {
    fn new() -> Self {
        let start = map_region(APP_REGIONS, PAGES * FRAME_BYTES).unwrap();
        Self { start, access: Access::ReadWrite, pages: BTreeMap::new() }
    }

    fn address(&self, page: u64) -> u64 {
        self.start + page * FRAME_BYTES
    }

    fn apply(&mut self, machine: &TestMachine, disk: &SlowDisk, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reclaim(frames) => drop(reclaim(FrameCount(frames))),
            Step::Batch => drop(run_batch()),
            Step::Disk => disk.finish_one(),
            Step::Read(page) => self.read(machine, page)?,
            Step::Write { pages, seed } => {
                for page in pages {
                    self.write(machine, page, seed)?;
                }
            }
            Step::Discard(range) => {
                discard(&part(self.start, range.clone()));
                self.pages.retain(|page, _| !range.contains(page));
            }
            Step::DiscardLazily(range) => {
                discard_lazily(&part(self.start, range.clone()));
                for (_, expected) in self.pages.range_mut(range) {
                    if let Expected::Word(word) = *expected {
                        *expected = Expected::WordOrZero(word);
                    }
                }
            }
            Step::Prefetch(range) => {
                let count = range.end - range.start;
                prop_assert!(prefetch(&part(self.start, range)) <= count);
            }
            Step::Protect(access) => {
                protect(self.start, access);
                self.access = access;
            }
            Step::Remap => {
                unmap_region(self.start);
                *self = Self::new();
            }
        }
        Ok(())
    }

    fn read(&mut self, machine: &TestMachine, page: u64) -> Result<(), TestCaseError> {
        let at = self.address(page);
        prop_assert_eq!(machine.touch(at), Ok(()));
        let found = machine.word(at);
        match self.pages.get(&page).copied().unwrap_or(Expected::Word(0)) {
            Expected::Word(word) => prop_assert_eq!(found, word, "page {}", page),
            Expected::WordOrZero(word) => {
                prop_assert!(found == word || found == 0, "page {}: {:#x}, not {:#x}", page, found, word);
                if found == 0 {
                    self.pages.insert(page, Expected::Word(0));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, machine: &TestMachine, page: u64, seed: u64) -> Result<(), TestCaseError> {
        let at = self.address(page);
        let result = machine.write(at, 0);
        if self.access == Access::ReadOnly {
            let violation = Violation::ReadOnly { start: self.start, end: self.address(PAGES) };
            prop_assert_eq!(result, Err(FaultError::Violation(violation)));
            return Ok(());
        }
        prop_assert_eq!(result, Ok(()));
        if seed.is_multiple_of(2) {
            machine.fill(at, noise(page, seed));
        } else {
            machine.fill(at, half_noise(page, seed));
        }
        self.pages.insert(page, Expected::Word(machine.word(at)));
        Ok(())
    }

    /// Nothing is committed twice or not at all.
    fn check(&self, machine: &TestMachine) -> Result<(), TestCaseError> {
        let region = machine.region(self.start);
        prop_assert_eq!(
            region.commit_charge.0 + machine.drawn(self.start),
            Region::commit_charge_for(PAGES * FRAME_BYTES).0
        );
        // What is still being read for a region that has ended keeps none of this one's commit
        // charges.
        let kept_ahead = reclaim::tests::committed_ahead().saturating_sub(FRAMES.ended_in_use());
        prop_assert_eq!(region.commit_charge, machine.statistics().committed.saturating_add(kept_ahead));
        prop_assert_eq!(validate(), Ok(()));
        let (region, all) = (statistics(self.start), reclaim::statistics());
        prop_assert_eq!((region.filled, region.compressed), (all.filled_pages, all.compressed_pool.pages));
        prop_assert_eq!(region.on_disk, all.pages_on_disk);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_what_was_written_unless_it_was_discarded(bound in 0_u64..40, steps in steps()) {
        let (machine, disk) = machine(6, 1280);
        bound_compressed_pool(bound);
        let mut model = Model::new();
        for step in steps {
            model.apply(&machine, disk, step)?;
            model.check(&machine)?;
        }
        for page in 0..PAGES {
            model.read(&machine, page)?;
        }
        model.check(&machine)?;
        unmap_region(model.start);
        assert_nothing_is_kept(&machine);
    }
}
