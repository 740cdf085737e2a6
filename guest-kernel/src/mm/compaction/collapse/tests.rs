//! Tables that become huge pages, and tables that do not.

use std::thread;
use std::time::Duration;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, HUGE_FRAMES};

use super::{CHUNK, TableScan, begin, collapse_tables, copy_chunk, slot_at};
use crate::layout::APP_REGIONS;
use crate::mm::address_space::RegionKind;
use crate::mm::advice;
use crate::mm::page_table::{Access, Slot};
use crate::mm::reclaim::{RECLAIMER, statistics};
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{BlockSize, FRAMES, Purpose, SPACE, map_region, unmap_region, validate};

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

/// Scans twice, with a touch before each scan.
fn two_busy_scans(machine: &TestMachine, start: u64) -> TableScan {
    machine.access(start);
    assert_eq!(collapse_tables(|| ()), TableScan { tables: 1, ..TableScan::default() }, "in use once is not enough");
    machine.access(start + 7 * FRAME_BYTES);
    collapse_tables(|| ())
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
    assert_eq!(two_busy_scans(&machine, start), TableScan { tables: 1, collapsed: 1, waiting: 0 });
    assert_eq!((slot_at(start), statistics().collapses), (Slot::Huge, 1));
    assert_eq!(machine.region(start).commit_charge, FrameCount(1), "the table is committed again");
    let after = machine.statistics();
    assert_eq!((after.free.0, after.committed.0), (before.free.0 + 1, before.committed.0 + 1));
    assert_eq!(collapse_tables(|| ()), TableScan::default());
    expect_contents(&machine, start);
    unmap_region(start);
    assert_eq!((machine.statistics().committed, validate()), (FrameCount::ZERO, Ok(())));
}

#[test]
fn a_table_that_is_not_in_use_stays_one() {
    let (machine, start) = machine_with_table();
    machine.access(start);
    for _ in 0..3 {
        assert_eq!(collapse_tables(|| ()), TableScan { tables: 1, ..TableScan::default() });
    }
    machine.access(start);
    assert_eq!(collapse_tables(|| ()), TableScan { tables: 1, ..TableScan::default() }, "in use now, but not before");
    expect_contents(&machine, start);
}

#[test]
fn a_scan_calls_between_after_each_table() {
    let (machine, start) = machine_with_table();
    let mut rests = 0;
    let mut scan = || {
        collapse_tables(|| {
            assert!(RECLAIMER.try_lock().is_some() && SPACE.try_lock().is_some(), "a lock is held");
            assert!(pages(start).all(|page| machine.frame_at(page).is_some()), "pages are revoked");
            rests += 1;
        })
    };
    machine.access(start);
    scan();
    machine.access(start);
    assert_eq!(scan().collapsed, 1);
    assert_eq!(rests, 2);
}

#[test]
fn a_table_with_gaps_stays_one() {
    let machine = TestMachine::start(8);
    let kept = machine.break_huge_frames();
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.mend_huge_frames(kept);
    assert_eq!(two_busy_scans(&machine, start), TableScan { tables: 1, ..TableScan::default() });
}

#[test]
fn a_slot_waits_for_a_huge_frame_and_for_free_memory() {
    let (machine, start) = machine_with_table();
    let huge: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Huge, Purpose::Kernel)).collect();
    assert_eq!(two_busy_scans(&machine, start), TableScan { tables: 1, collapsed: 0, waiting: 1 });
    huge.into_iter().for_each(|block| FRAMES.free(block));
    let high = FrameCount(machine.statistics().free.0 - HUGE_FRAMES + 1);
    FRAMES.set_watermarks(Watermarks { low: FrameCount::ZERO, high });
    machine.access(start);
    assert_eq!(collapse_tables(|| ()).waiting, 1);
    FRAMES.set_watermarks(Watermarks { low: FrameCount::ZERO, high: FrameCount(high.0 - 1) });
    machine.access(start);
    assert_eq!(collapse_tables(|| ()).collapsed, 1);
    expect_contents(&machine, start);
}

#[test]
fn a_touch_during_the_copy_maps_the_pages_again() {
    let (machine, start) = machine_with_table();
    let before = machine.statistics();
    assert!(begin(start));
    assert!(copy_chunk());
    let page = start + CHUNK / 2 * FRAME_BYTES;
    assert!(machine.frame_at(page).is_none());
    machine.touch(page).unwrap();
    machine.set_word(page, page);
    assert!(!copy_chunk(), "the collapse was abandoned");
    assert!(pages(start).all(|page| machine.frame_at(page).is_some()));
    assert_eq!((slot_at(start), machine.statistics()), (Slot::Table, before));
    expect_contents(&machine, start);
}

#[test]
fn a_region_that_ends_during_the_copy_frees_its_pages() {
    let (machine, start) = machine_with_table();
    assert!(begin(start));
    assert!(copy_chunk());
    unmap_region(start);
    assert!(!copy_chunk());
    let statistics = machine.statistics();
    assert_eq!((statistics.committed, validate()), (FrameCount::ZERO, Ok(())));
    assert_eq!(statistics.free, FrameCount(8 * HUGE_FRAMES - 3), "the root and two tables above the region's stay");
}

#[test]
fn a_discard_during_the_copy_keeps_the_other_pages() {
    let (machine, start) = machine_with_table();
    assert!(begin(start));
    assert!(copy_chunk());
    advice::discard(&(start + FRAME_BYTES..start + 3 * FRAME_BYTES));
    assert!(!copy_chunk(), "the collapse was abandoned");
    let absent: Vec<_> = pages(start).filter(|&page| machine.frame_at(page).is_none()).collect();
    assert_eq!(absent, [start + FRAME_BYTES, start + 2 * FRAME_BYTES]);
    for page in absent {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), 0);
        machine.set_word(page, page);
    }
    expect_contents(&machine, start);
}

/// A collapse that ends while a discard is about to begin: the slot is a table when the discard is
/// asked for, and a huge page when its pages are released.
#[test]
fn a_slot_that_becomes_huge_before_a_discard_keeps_the_pages_outside() {
    let (machine, start) = machine_with_table();
    let outside = start + HUGE_BYTES / 2;
    assert!(begin(start));
    for _ in 1..HUGE_FRAMES / CHUNK {
        assert!(copy_chunk());
    }
    thread::scope(|scope| {
        let _reclaimer = RECLAIMER.lock();
        scope.spawn(|| advice::discard(&(start..outside)));
        // The discard goes as far as it can without the reclaimer's lock.
        thread::sleep(Duration::from_millis(50));
        assert!(!copy_chunk());
        assert_eq!(slot_at(start), Slot::Huge);
    });
    for page in pages(start) {
        let is_kept = page >= outside;
        assert_eq!(machine.frame_at(page).is_some(), is_kept, "the page at {page:#x}");
        if is_kept {
            assert_eq!(machine.word(page), page);
        }
    }
    assert_eq!(validate(), Ok(()));
    unmap_region(start);
    assert_eq!((machine.statistics().committed, validate()), (FrameCount::ZERO, Ok(())));
}

#[test]
fn a_file_at_the_address_of_a_due_table_is_not_collapsed() {
    let (machine, start) = machine_with_table();
    SPACE.lock().regions.find_mut(start).unwrap().kind = RegionKind::File;
    let before = machine.statistics();
    assert!(begin(start));
    assert!(!copy_chunk(), "nothing has begun");
    assert_eq!((slot_at(start), machine.statistics()), (Slot::Table, before));
    SPACE.lock().regions.find_mut(start).unwrap().kind = RegionKind::Anonymous;
}

#[test]
fn read_only_pages_stay_read_only() {
    let (machine, start) = machine_with_table();
    advice::protect(start, Access::ReadOnly);
    assert_eq!(two_busy_scans(&machine, start).collapsed, 1);
    let is_writable = || SPACE.lock().tables().unwrap().is_writable(start);
    assert!(!is_writable());
    advice::protect(start, Access::ReadWrite);
    assert!(is_writable());
    expect_contents(&machine, start);
}

#[test]
fn discarded_pages_are_not_collapsed() {
    let (machine, start) = machine_with_table();
    SPACE.lock().tables_mut().unwrap().mark_discardable(start, start + FRAME_BYTES);
    assert_eq!(two_busy_scans(&machine, start).collapsed, 0);
    machine.write(start, start).unwrap();
    assert_eq!(two_busy_scans(&machine, start).collapsed, 1);
    expect_contents(&machine, start);
}
