//! Tables that become huge pages, and those that don't.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, HUGE_FRAMES};

use super::super::{RECLAIMER, statistics};
use super::{CHUNK, Round, begin, run_round, slot_at};
use crate::layout::APP_REGIONS;
use crate::mm::page_table::Slot;
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{BlockSize, FRAMES, Purpose, map_region, unmap_region, validate};

fn pages(start: u64) -> impl Iterator<Item = u64> {
    (start..start + HUGE_BYTES).step_by(FRAME_SIZE)
}

/// A machine with a region of one slot, in a table of pages, each of which has its address in it.
fn machine_with_table() -> (TestMachine, u64) {
    let machine = TestMachine::start(8);
    let kept = machine.break_huge_frames();
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    for page in pages(start) {
        machine.touch(page).unwrap();
        machine.set_word(page, page);
    }
    machine.mend_huge_frames(kept);
    assert_eq!(slot_at(start), Slot::Table);
    (machine, start)
}

/// Two rounds, with a touch before each.
fn two_busy_rounds(machine: &TestMachine, start: u64) -> Round {
    machine.access(start);
    assert_eq!(run_round(), Round { tables: 1, ..Round::default() }, "in use once is not enough");
    machine.access(start + 7 * FRAME_BYTES);
    run_round()
}

fn expect_contents(machine: &TestMachine, start: u64) {
    for page in pages(start) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), page);
    }
    assert_eq!(validate(), Ok(()));
}

#[test]
fn a_full_table_in_use_becomes_a_huge_page() {
    let (machine, start) = machine_with_table();
    let before = machine.statistics();
    assert_eq!(two_busy_rounds(&machine, start), Round { tables: 1, collapsed: 1, waiting: 0 });
    assert_eq!((slot_at(start), statistics().collapses), (Slot::Huge, 1));
    assert_eq!(machine.region(start).promise, FrameCount(1), "the table is promised again");
    let after = machine.statistics();
    assert_eq!((after.free.0, after.promised.0), (before.free.0 + 1, before.promised.0 + 1));
    assert_eq!(run_round(), Round::default());
    expect_contents(&machine, start);
    unmap_region(start);
    assert_eq!((machine.statistics().promised, validate()), (FrameCount::ZERO, Ok(())));
}

#[test]
fn a_table_that_is_not_in_use_stays_one() {
    let (machine, start) = machine_with_table();
    machine.access(start);
    for _ in 0..3 {
        assert_eq!(run_round(), Round { tables: 1, ..Round::default() });
    }
    machine.access(start);
    assert_eq!(run_round(), Round { tables: 1, ..Round::default() }, "in use now, but not before");
    expect_contents(&machine, start);
}

#[test]
fn a_table_with_gaps_stays_one() {
    let machine = TestMachine::start(8);
    let kept = machine.break_huge_frames();
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.mend_huge_frames(kept);
    assert_eq!(two_busy_rounds(&machine, start), Round { tables: 1, ..Round::default() });
}

#[test]
fn a_slot_waits_for_a_huge_frame_and_for_free_memory() {
    let (machine, start) = machine_with_table();
    let huge: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Huge, Purpose::Kernel)).collect();
    assert_eq!(two_busy_rounds(&machine, start), Round { tables: 1, collapsed: 0, waiting: 1 });
    huge.into_iter().for_each(|block| FRAMES.free(block));
    let high = FrameCount(machine.statistics().free.0 - HUGE_FRAMES + 1);
    FRAMES.set_watermarks(Watermarks { low: FrameCount::ZERO, high });
    machine.access(start);
    assert_eq!(run_round().waiting, 1);
    FRAMES.set_watermarks(Watermarks { low: FrameCount::ZERO, high: FrameCount(high.0 - 1) });
    machine.access(start);
    assert_eq!(run_round().collapsed, 1);
    expect_contents(&machine, start);
}

#[test]
fn a_touch_during_the_copy_gets_the_pages_back() {
    let (machine, start) = machine_with_table();
    let before = machine.statistics();
    assert!(begin(start));
    assert!(RECLAIMER.lock().copy_chunk());
    let page = start + CHUNK / 2 * FRAME_BYTES;
    assert!(machine.frame_at(page).is_none());
    machine.touch(page).unwrap();
    machine.set_word(page, page);
    assert!(!RECLAIMER.lock().copy_chunk(), "it was abandoned");
    assert!(pages(start).all(|page| machine.frame_at(page).is_some()));
    assert_eq!((slot_at(start), machine.statistics()), (Slot::Table, before));
    expect_contents(&machine, start);
}

#[test]
fn a_region_that_ends_during_the_copy_takes_its_pages_along() {
    let (machine, start) = machine_with_table();
    assert!(begin(start));
    assert!(RECLAIMER.lock().copy_chunk());
    unmap_region(start);
    assert!(!RECLAIMER.lock().copy_chunk());
    let statistics = machine.statistics();
    assert_eq!((statistics.promised, validate()), (FrameCount::ZERO, Ok(())));
    assert_eq!(statistics.free, FrameCount(8 * HUGE_FRAMES - 3), "the root and two tables above the region's stay");
}
