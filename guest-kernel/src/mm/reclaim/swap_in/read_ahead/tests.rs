//! Reading ahead, on a machine with a swap disk.

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_FRAMES};

use crate::config::EVICTION_RESERVE;
use crate::layout::APP_REGIONS;
use crate::mm::advice::discard;
use crate::mm::fault::FaultError;
use crate::mm::reclaim::swap::disk::Direction;
use crate::mm::reclaim::swap::slot_map::SlotNumber;
use crate::mm::reclaim::swap::slow_disk::SlowDisk;
use crate::mm::reclaim::tests::committed_ahead;
use crate::mm::reclaim::tests::swap_disk::{self as disk_tests, assert_nothing_is_kept, noise, pages};
use crate::mm::reclaim::{RECLAIMER, reclaim, statistics};
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{BlockSize, FRAMES, Purpose, map_region, unmap_region};

const EVERYTHING: FrameCount = FrameCount(1 << 20);
/// Pages of the first read, of the read that continues it, and of the one that is then read ahead.
const FIRST: u64 = 8;
const SECOND: u64 = 16;
const THIRD: u64 = 32;

/// Returns a machine whose disk ends transfers in the order of their submission, so that a thread
/// waits only for its own.
fn machine(slots: u64) -> (TestMachine, &'static SlowDisk) {
    let (machine, disk) = disk_tests::machine(8, slots);
    disk.state().is_in_order = true;
    (machine, disk)
}

/// Creates a region of noise, all of it on disk.
fn evicted(machine: &TestMachine, count: u64, seed: u64) -> u64 {
    let start = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, seed));
    }
    reclaim(EVERYTHING);
    assert_eq!(statistics().pages_on_disk, count);
    start
}

/// Touches pages in order, and checks their contents.
fn touch(machine: &TestMachine, start: u64, count: u64, seed: u64) {
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, seed)(0));
    }
}

fn reads_under_way(disk: &SlowDisk) -> Vec<usize> {
    let state = disk.state();
    let reads = state.under_way.iter().filter(|(_, direction, ..)| *direction == Direction::Read);
    reads.map(|(.., frames)| frames.len()).collect()
}

fn page(start: u64, number: u64) -> u64 {
    start + number * FRAME_BYTES
}

#[test]
fn a_read_that_continues_another_begins_the_next() {
    let (machine, disk) = machine(1024);
    let start = evicted(&machine, 400, 1);
    touch(&machine, start, FIRST, 1);
    assert_eq!((reads_under_way(disk), committed_ahead()), (vec![], FrameCount::ZERO), "one read is no sequence");
    machine.touch(page(start, FIRST)).unwrap();
    assert_eq!((reads_under_way(disk), statistics().restores), (vec![32], FIRST + SECOND));
    assert_eq!(committed_ahead(), FrameCount(THIRD));
    disk.finish_one();
    touch(&machine, start, FIRST + SECOND, 1);
    let major = crate::mm::fault::counts().major;
    machine.touch(page(start, FIRST + SECOND)).unwrap();
    assert_eq!(crate::mm::fault::counts().major, major, "no thread has waited for the disk");
    assert_eq!((reads_under_way(disk), statistics().restores), (vec![64], FIRST + SECOND + THIRD));
    touch(&machine, start, 400, 1);
    assert_eq!((statistics().restores, statistics().disk.reads), (400, 400), "each page once");
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Pages that are touched in order may have been evicted in two scans: neither stream ends the
/// other.
#[test]
fn two_streams_are_followed_at_once() {
    let (machine, _) = machine(1024);
    let start = map_region(APP_REGIONS, 500 * FRAME_BYTES).unwrap();
    for is_late in [false, true] {
        for at in pages(start, 500).enumerate().filter(|(number, _)| (number % 8 == 3) == is_late).map(|(_, at)| at) {
            touch_and_fill(&machine, at, 1, 2);
        }
        reclaim(EVERYTHING);
    }
    let mut most = 0;
    for at in pages(start, 500) {
        machine.touch(at).unwrap();
        assert_eq!(machine.word(at), noise(at, 2)(0));
        most = most.max(RECLAIMER.lock().swap_in.reads_ahead());
    }
    assert_eq!((most, statistics().disk.reads), (2, 500), "and no page is read twice");
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

fn touch_and_fill(machine: &TestMachine, start: u64, count: u64, seed: u64) {
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, seed));
    }
}

#[test]
fn the_end_of_a_region_drops_its_reads_ahead() {
    for has_ended in [false, true] {
        let (machine, disk) = machine(1024);
        let start = evicted(&machine, 200, 3);
        touch(&machine, start, FIRST + 1, 3);
        assert_eq!(reads_under_way(disk), [32]);
        if has_ended {
            disk.finish_one();
        }
        let free = machine.statistics().free.0;
        unmap_region(start);
        let pages_and_table = FIRST + SECOND + 1;
        let ahead = if has_ended { THIRD } else { 0 };
        assert_eq!(machine.statistics().free.0, free + pages_and_table + ahead, "unless the disk still writes to them");
        assert_nothing_is_kept(&machine);
    }
}

/// While a page is read ahead, the application discards it, writes to it, and it is evicted to the
/// same slot. The contents that were read are old.
#[test]
fn a_read_ahead_is_dropped_if_its_slot_was_used_again() {
    let (machine, disk) = machine(64);
    let start = evicted(&machine, 64, 4);
    touch(&machine, start, FIRST + 1, 4);
    let discarded = page(start, FIRST + SECOND + 5);
    discard(&(start..page(start, FIRST + SECOND))); // it is the only page in memory then
    let slots = take_free_slots();
    discard(&(discarded..discarded + FRAME_BYTES));
    touch_and_fill(&machine, discarded, 1, 5);
    disk.state().is_in_order = false;
    assert_eq!(reclaim(FrameCount(9)), FrameCount(9), "and the empty pages around it");
    assert_eq!((reads_under_way(disk), take_free_slots().len()), (vec![32], 0), "the page has taken the slot");
    touch(&machine, page(start, FIRST + SECOND), 1, 4);
    assert_eq!(machine.frame_at(discarded), None);
    assert_eq!(machine.frame_at(page(discarded, 1)).map(|_| ()), Some(()), "its neighbour is there");
    touch(&machine, discarded, 1, 5);
    free_slots(slots);
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Takes all free slots of the disk: nothing can be evicted to it.
fn take_free_slots() -> Vec<SlotNumber> {
    let mut reclaimer = RECLAIMER.lock();
    let slots = &mut reclaimer.swap.disk.as_mut().unwrap().slots;
    let runs = core::iter::from_fn(|| slots.take_run(1, 64));
    runs.flat_map(|(first, length)| (0..length).map(move |place| first.plus(place))).collect()
}

fn free_slots(unused: Vec<SlotNumber>) {
    let mut reclaimer = RECLAIMER.lock();
    let slots = &mut reclaimer.swap.disk.as_mut().unwrap().slots;
    unused.into_iter().for_each(|slot| slots.free_slot(slot));
}

#[test]
fn an_error_of_a_read_ahead_counts_when_the_page_is_touched() {
    let (machine, disk) = machine(1024);
    let start = evicted(&machine, 200, 6);
    let bad = FIRST + SECOND + 9;
    disk.state().unreadable.insert(u32::try_from(bad).unwrap());
    touch(&machine, start, FIRST + 1, 6);
    assert_eq!(reads_under_way(disk), [32]);
    disk.finish_one();
    touch(&machine, start, bad, 6);
    assert_eq!(statistics().disk.errors, 0);
    assert_eq!(machine.touch(page(start, bad)), Err(FaultError::Disk));
    assert_eq!(statistics().disk.errors, 1);
    touch(&machine, page(start, bad + 1), 200 - bad - 1, 6);
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn nothing_is_read_ahead_without_spare_frames() {
    let (machine, disk) = machine(1024);
    let start = evicted(&machine, 200, 7);
    touch(&machine, start, FIRST, 7);
    let all = Watermarks { low: FrameCount(8 * HUGE_FRAMES), high: FrameCount(8 * HUGE_FRAMES) };
    FRAMES.set_watermarks(all);
    touch(&machine, page(start, FIRST), 20, 7);
    assert_eq!((reads_under_way(disk), committed_ahead()), (vec![], FrameCount::ZERO));
    assert_eq!(statistics().restores, FIRST + 20, "each alone");
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// A reclaim attempt keeps a read ahead that it meets for the first time, and drops one that it has
/// met before. An attempt that finds nothing else waits even for the disk.
#[test]
fn frames_of_unused_reads_are_freed() {
    let (machine, disk) = machine(1024);
    let start = evicted(&machine, 200, 8);
    touch(&machine, start, FIRST + 1, 8);
    disk.finish_one();
    reclaim(FrameCount(1));
    assert_eq!(committed_ahead(), FrameCount(THIRD));
    let free = machine.statistics().free;
    let freed = reclaim(FrameCount(1));
    assert!(freed >= FrameCount(THIRD));
    assert_eq!((committed_ahead(), machine.statistics().free), (FrameCount::ZERO, FrameCount(free.0 + freed.0)));

    touch(&machine, start, 100, 8);
    assert!(committed_ahead() > FrameCount::ZERO);
    reclaim(EVERYTHING);
    assert_eq!((committed_ahead(), statistics().pages_on_disk), (FrameCount::ZERO, 200));
    touch(&machine, start, 200, 8);
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Where nothing can be evicted, the frames that the disk is about to fill are the last that can be
/// had: the attempt waits for them.
#[test]
fn a_thread_without_a_frame_gets_one_of_a_read_ahead() {
    let (machine, disk) = machine(64);
    let start = evicted(&machine, 64, 9);
    let other = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    touch(&machine, start, FIRST + 1, 9);
    let slots = take_free_slots();
    let spare = machine.statistics().free.0 - EVICTION_RESERVE.0;
    let blocks: Vec<_> = (0..spare).map(|_| FRAMES.allocate(BlockSize::Frame, Purpose::Kernel).unwrap()).collect();
    assert_eq!(reads_under_way(disk), [32]);
    machine.touch(other).unwrap();
    assert_eq!((reads_under_way(disk), committed_ahead()), (vec![], FrameCount::ZERO));
    blocks.into_iter().for_each(|block| FRAMES.free(block));
    free_slots(slots);
    touch(&machine, start, 64, 9);
    unmap_region(start);
    unmap_region(other);
    assert_nothing_is_kept(&machine);
}
