//! Regions from commit charge to touch to release, on a small machine: no frame and no commit
//! charge may be lost on any way.

use std::collections::BTreeMap;
use std::sync::Barrier;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, FrameNumber, HUGE_BYTES, HUGE_FRAMES};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{CommitCharge, Region, SPACE, Violation, extend_region, map_region, shrink_region, unmap_region};
use crate::layout::APP_REGIONS;
use crate::mm::fault::FaultError;
use crate::mm::page_table::Slot;
use crate::mm::testing::{TestMachine, block};
use crate::mm::{Block, BlockSize, FRAMES, OutOfMemory, Purpose, pressure, slow_path, validate};

const VIOLATION: FaultError = FaultError::Violation(Violation::NoRegion);
/// A table of slots and what is above it, made with the first mapping and kept.
const UPPER_TABLES: u64 = 2;

fn slot_at(address: u64) -> Slot {
    SPACE.lock().tables().unwrap().slot(address)
}

#[test]
fn a_region_is_committed_then_drawn_by_touches_and_uncharged_at_its_end() {
    let machine = TestMachine::start(16);
    let before = machine.statistics();
    let start = map_region(APP_REGIONS, 2 * HUGE_BYTES + 1).unwrap();
    let commit_charge = 2 * HUGE_FRAMES + 1 + 3;
    assert_eq!(machine.statistics().committed, FrameCount(commit_charge), "pages, and a table for each slot");
    assert_eq!(machine.statistics().free, before.free, "nothing is found before it is touched");

    machine.touch(start + HUGE_BYTES + 77).unwrap();
    assert_eq!(slot_at(start + HUGE_BYTES), Slot::Huge);
    machine.touch(start + 2 * HUGE_BYTES).unwrap();
    assert_eq!(slot_at(start + 2 * HUGE_BYTES), Slot::Table, "the last slot is only a page long");
    let drawn = HUGE_FRAMES + 1 + 1;
    assert_eq!(machine.statistics().committed, FrameCount(commit_charge - drawn));
    assert_eq!(machine.statistics().free, FrameCount(before.free.0 - drawn - UPPER_TABLES));

    unmap_region(start);
    assert_eq!(machine.statistics().committed, FrameCount::ZERO);
    assert_eq!(machine.statistics().free, FrameCount(before.free.0 - UPPER_TABLES));
    assert_eq!(machine.touch(start), Err(VIOLATION));
    assert_eq!(validate(), Ok(()));
}

#[test]
fn touching_outside_of_regions_is_a_violation() {
    let machine = TestMachine::start(8);
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    for address in [0, start - 1, start + FRAME_BYTES, u64::MAX] {
        assert_eq!(machine.touch(address), Err(VIOLATION), "{address:#x}");
    }
}

#[test]
fn a_lone_fault_brings_its_neighbours_in_but_not_beyond_the_region() {
    let machine = TestMachine::start(8);
    let start = map_region(APP_REGIONS, 20 * FRAME_BYTES).unwrap();
    machine.touch(start + 17 * FRAME_BYTES).unwrap();
    let mapped = |page: &u64| machine.frame_at(start + page * FRAME_BYTES).is_some();
    assert_eq!((0..HUGE_FRAMES).filter(mapped).collect::<Vec<_>>(), [16, 17, 18, 19]);
}

#[test]
fn pages_come_singly_when_no_huge_frame_is_left() {
    let machine = TestMachine::start(4);
    machine.break_huge_frames();
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    for page in (start..start + HUGE_BYTES).step_by(FRAME_SIZE) {
        machine.touch(page).unwrap();
    }
    assert_eq!(slot_at(start), Slot::Table);
    assert_eq!(machine.region(start).commit_charge, FrameCount::ZERO, "all of it drawn, the table included");
}

#[test]
fn reused_memory_is_zero() {
    let machine = TestMachine::start(4);
    for bytes in [HUGE_BYTES, 3 * FRAME_BYTES, HUGE_BYTES] {
        let start = map_region(APP_REGIONS, bytes).unwrap();
        for page in (start..start + bytes).step_by(FRAME_SIZE) {
            machine.touch(page).unwrap();
            assert_eq!(machine.word(page), 0);
            machine.set_word(page, u64::MAX);
        }
        unmap_region(start);
    }
}

#[test]
fn a_refused_commit_charge_changes_nothing() {
    let machine = TestMachine::start(8);
    let start = map_region(APP_REGIONS, 2 * HUGE_BYTES).unwrap();
    machine.touch(start).unwrap();
    let (statistics, region) = (machine.statistics(), machine.region(start));
    let (before, stalls) = (slow_path::statistics(), pressure::statistics().stalls);
    let too_much = statistics.available.bytes();
    for bytes in [too_much, 1 << 50, u64::MAX - FRAME_BYTES, u64::MAX] {
        assert_eq!(map_region(APP_REGIONS, bytes), Err(OutOfMemory), "{bytes} bytes");
    }
    assert_eq!(map_region(start..start + HUGE_BYTES, FRAME_BYTES), Err(OutOfMemory), "no place");
    assert_eq!(
        resize_region(start, start + (2 * HUGE_BYTES + too_much).next_multiple_of(HUGE_BYTES)),
        Err(OutOfMemory)
    );
    assert_eq!(resize_region(start + 8 * HUGE_BYTES, start + 9 * HUGE_BYTES), Err(OutOfMemory), "no region");
    unmap_region(start + FRAME_BYTES);
    assert_eq!((machine.statistics(), machine.region(start)), (statistics, region));
    let after = slow_path::statistics();
    assert!(after.failures >= before.failures + 4 && after.stalls >= before.stalls + 4);
    assert!(pressure::statistics().stalls >= stalls + 4, "waiting for a commit charge is pressure");
    assert_eq!(validate(), Ok(()));
}

#[test]
fn the_balloon_can_inflate_with_nothing_that_is_committed() {
    let machine = TestMachine::start(4);
    let bytes = 2 * HUGE_BYTES;
    let start = map_region(APP_REGIONS, bytes).unwrap();
    let balloon = || FRAMES.allocate(BlockSize::Frame, Purpose::Balloon).map(Block::into_number);
    while balloon().is_some() {}
    for page in (start..start + bytes).step_by(FRAME_SIZE) {
        machine.touch(page).unwrap();
    }
    assert_eq!(machine.statistics().available, FrameCount::ZERO);
}

#[test]
fn a_region_grows_and_shrinks_by_slots_and_keeps_what_is_below() {
    let machine = TestMachine::start(8);
    let before = machine.statistics();
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.set_word(start, 7);
    resize_region(start, start + 3 * HUGE_BYTES).unwrap();
    machine.touch(start + 2 * HUGE_BYTES).unwrap();
    assert_eq!(machine.drawn(start), 2 * HUGE_FRAMES);
    resize_region(start, start + HUGE_BYTES).unwrap();
    assert_eq!((machine.drawn(start), machine.word(start)), (HUGE_FRAMES, 7));
    assert_eq!(machine.touch(start + HUGE_BYTES), Err(VIOLATION));
    assert_eq!(machine.region(start).commit_charge, FrameCount(1), "the table that it did not need");
    unmap_region(start);
    assert_eq!(machine.statistics().available, FrameCount(before.available.0 - UPPER_TABLES));
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "a region can't end at")]
fn a_region_is_not_resized_into_a_slot() {
    let _machine = TestMachine::start(8);
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    let _ = resize_region(start, start + FRAME_BYTES);
}

/// Several threads create regions in the same part of the address space, use them and end them,
/// again and again: where one ends, the next begins at once, while the frames of the old one are
/// still being freed.
#[test]
fn regions_of_several_threads_do_not_disturb_each_other() {
    const THREADS: u64 = 3;
    const ROUNDS: u64 = 200;
    const PAGES: u64 = 4 * HUGE_FRAMES;
    let machine = TestMachine::start(16);
    machine.break_huge_frames();
    let free = machine.statistics().free;
    let use_regions = |thread: u64| {
        for round in 0..ROUNDS {
            let start = map_region(APP_REGIONS, PAGES * FRAME_BYTES).unwrap();
            let pages: Vec<_> = (0..PAGES).step_by(97).map(|page| start + page * FRAME_BYTES).collect();
            for &page in &pages {
                machine.touch(page).unwrap();
                assert_eq!(machine.word(page), 0, "fresh memory");
                machine.set_word(page, thread * ROUNDS + round);
            }
            assert!(pages.iter().all(|&page| machine.word(page) == thread * ROUNDS + round));
            unmap_region(start);
        }
    };
    let use_regions = &use_regions;
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            scope.spawn(move || use_regions(thread));
        }
    });
    let statistics = machine.statistics();
    assert_eq!(statistics.committed, FrameCount::ZERO);
    assert_eq!(statistics.free, FrameCount(free.0 - UPPER_TABLES));
    assert_eq!(validate(), Ok(()));
}

/// Several threads touch the same slot at the same time: the fastest maps it, and the others free
/// their blocks and charge the commit again.
#[test]
fn a_slot_that_several_threads_touch_at_once_is_paid_for_once() {
    const THREADS: usize = 3;
    let machine = TestMachine::start(16);
    for _ in 0..30 {
        let start = map_region(APP_REGIONS, 2 * HUGE_BYTES).unwrap();
        let other = map_region(APP_REGIONS, 4 * HUGE_BYTES).unwrap(); // its commit charge is not to be drawn
        let (barrier, machine) = (&Barrier::new(THREADS), &machine);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(move || {
                    barrier.wait();
                    machine.touch(start).unwrap();
                    machine.touch(start + HUGE_BYTES).unwrap();
                });
            }
        });
        assert_eq!(machine.region(start).commit_charge, FrameCount(2), "the tables that it did not need");
        assert_eq!(machine.statistics().committed, FrameCount(2 + machine.region(other).commit_charge.0));
        assert_eq!(validate(), Ok(()));
        unmap_region(start);
        unmap_region(other);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map {
        pages: u64,
    },
    Unmap {
        choice: usize,
    },
    /// Pages of a region, from a place in it on.
    Touch {
        choice: usize,
        page: u64,
        count: u64,
    },
    Resize {
        choice: usize,
        slots: u64,
    },
    /// Another user allocates frames that are not committed, or frees some.
    Inflate {
        size: BlockSize,
        count: usize,
    },
    Deflate {
        count: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let choice = || 0_usize..100;
    let size = prop_oneof![Just(BlockSize::Frame), Just(BlockSize::Huge)];
    let step = prop_oneof![
        3 => (1..4 * HUGE_FRAMES).prop_map(|pages| Step::Map { pages }),
        2 => choice().prop_map(|choice| Step::Unmap { choice }),
        4 => (choice(), 0..4 * HUGE_FRAMES, 1_u64..100)
            .prop_map(|(choice, page, count)| Step::Touch { choice, page, count }),
        2 => (choice(), 1_u64..6).prop_map(|(choice, slots)| Step::Resize { choice, slots }),
        1 => (size, 1_usize..600).prop_map(|(size, count)| Step::Inflate { size, count }),
        1 => (1_usize..600).prop_map(|count| Step::Deflate { count }),
    ];
    vec(step, 1..40)
}

/// What the regions should be, and what is in them.
#[derive(Default)]
struct Model {
    /// By start: the end, and the words that were written, by page.
    regions: BTreeMap<u64, (u64, BTreeMap<u64, u64>)>,
    ballooned: Vec<(FrameNumber, BlockSize)>,
    next_word: u64,
}

impl Model {
    fn choose(&self, choice: usize) -> Option<u64> {
        let place = choice.checked_rem(self.regions.len())?;
        self.regions.keys().nth(place).copied()
    }

    fn apply(&mut self, machine: &TestMachine, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Map { pages } => {
                let fits = Region::commit_charge_for(pages * FRAME_BYTES) <= machine.statistics().available;
                let start = map_region(APP_REGIONS, pages * FRAME_BYTES);
                prop_assert_eq!(start.is_ok(), fits);
                self.regions.extend(start.map(|start| (start, (start + pages * FRAME_BYTES, BTreeMap::new()))));
            }
            Step::Unmap { choice } => {
                if let Some(start) = self.choose(choice) {
                    unmap_region(start);
                    self.regions.remove(&start);
                }
            }
            Step::Touch { choice, page, count } => {
                let Some(start) = self.choose(choice) else { return Ok(()) };
                let (end, words) = self.regions.get_mut(&start).unwrap();
                let first = start + page * FRAME_BYTES;
                for page in (first..(first + count * FRAME_BYTES).min(*end)).step_by(FRAME_SIZE) {
                    prop_assert_eq!(machine.touch(page), Ok(()));
                    prop_assert_eq!(machine.word(page), words.get(&page).copied().unwrap_or(0));
                    self.next_word += 1;
                    machine.set_word(page, self.next_word);
                    words.insert(page, self.next_word);
                }
            }
            Step::Resize { choice, slots } => {
                let Some(start) = self.choose(choice) else { return Ok(()) };
                let new_end = start + slots * HUGE_BYTES;
                // The code that extends a region has left room behind it.
                if self.regions.range(start + 1..=new_end).next().is_some() {
                    return Ok(());
                }
                let (end, words) = self.regions.get_mut(&start).unwrap();
                let before = (machine.statistics(), machine.region(start));
                if resize_region(start, new_end).is_ok() {
                    *end = new_end;
                    words.retain(|&page, _| page < new_end);
                } else {
                    prop_assert!(new_end > *end, "shrinking can't fail");
                    prop_assert_eq!((machine.statistics(), machine.region(start)), before);
                }
            }
            Step::Inflate { size, count } => {
                for _ in 0..count {
                    let Some(block) = FRAMES.allocate(size, Purpose::Balloon) else { break };
                    self.ballooned.push((block.into_number(), size));
                }
            }
            Step::Deflate { count } => {
                let kept = self.ballooned.len().saturating_sub(count);
                for (first, size) in self.ballooned.drain(kept..) {
                    FRAMES.free(block(first, size));
                }
            }
        }
        Ok(())
    }

    /// Every frame and every commit charge is somewhere.
    fn check(&self, machine: &TestMachine, all_frames: FrameCount) -> Result<(), TestCaseError> {
        let (mut drawn, mut committed) = (0, 0);
        for (&start, &(end, _)) in &self.regions {
            let region = machine.region(start);
            prop_assert_eq!(&region.range, &(start..end));
            let drawn_here = machine.drawn(start);
            prop_assert_eq!(region.commit_charge.0 + drawn_here, Region::commit_charge_for(end - start).0);
            drawn += drawn_here;
            committed += region.commit_charge.0;
        }
        let ballooned: u64 = self.ballooned.iter().map(|(_, size)| size.frames()).sum();
        let statistics = machine.statistics();
        prop_assert_eq!(statistics.committed.0, committed);
        let tables = all_frames.0 - statistics.free.0 - drawn - ballooned;
        prop_assert!(tables == 0 || tables == UPPER_TABLES, "{} frames are nowhere", tables);
        prop_assert_eq!(validate(), Ok(()));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_frame_and_no_commit_charge_is_lost(steps in steps()) {
        let machine = TestMachine::start(16);
        let all_frames = machine.statistics().free;
        let mut model = Model::default();
        for step in &steps {
            model.apply(&machine, step)?;
            model.check(&machine, all_frames)?;
        }
        for (start, (_, words)) in std::mem::take(&mut model.regions) {
            for (page, word) in words {
                prop_assert_eq!(machine.word(page), word, "what was written stays");
            }
            unmap_region(start);
        }
        model.check(&machine, all_frames)?;
        prop_assert_eq!(machine.statistics().committed, FrameCount::ZERO);
    }
}

/// Extends or shrinks the region at `start`, whichever takes its end to `end`. A region that ends
/// within a slot is not extended.
fn resize_region(start: u64, end: u64) -> Result<(), OutOfMemory> {
    let old_end = SPACE.lock().regions.find(start).map(|region| region.range.end).ok_or(OutOfMemory)?;
    if end > old_end && !old_end.is_multiple_of(HUGE_BYTES) {
        return Err(OutOfMemory);
    }
    if end > old_end {
        extend_region(start, CommitCharge::for_region(end - old_end)?);
    } else if end < old_end {
        shrink_region(start, end);
    }
    Ok(())
}
