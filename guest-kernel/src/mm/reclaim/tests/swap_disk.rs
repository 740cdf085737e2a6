//! Eviction to a disk that takes its time and fails on request, on a machine of ordinary memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use aerostat_abi::units::{FRAME_BYTES, FrameCount, HUGE_FRAMES};
use aerostat_reclaim_policy::Name;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, proptest};

use crate::layout::APP_REGIONS;
use crate::mm::address_space::{Fate, release, shorten};
use crate::mm::bump::BumpAllocator;
use crate::mm::fault::FaultError;
use crate::mm::reclaim::attempt::wait_for_disk;
use crate::mm::reclaim::scan::efforts::Urgency;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::reclaim::swap::disk::{Direction, Disk as _};
use crate::mm::reclaim::swap::slot_map::{SlotMap, SlotNumber};
use crate::mm::reclaim::swap::slow_disk::{DEPTH, SlowDisk};
use crate::mm::reclaim::{RECLAIMER, reclaim, statistics, wait_for_reads};
use crate::mm::testing::{TestMachine, fill, read_fault};
use crate::mm::{BlockSize, FRAMES, Purpose, SPACE, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);

pub(in crate::mm) fn machine(huge_frames: u64, slots: u64) -> (TestMachine, &'static SlowDisk) {
    let machine = TestMachine::start(huge_frames);
    let disk = SlowDisk::leaked(slots);
    let usable = SlotMap::usable(slots);
    let map = SlotMap::new(usable, &mut BumpAllocator::leaked(SlotMap::words(usable)));
    let swap = Swap { policy: Name::default(), compressed: FrameCount::ZERO, disk: Some((disk, map)) };
    start(swap);
    (machine, disk)
}

/// Bounds the compressed pool.
pub(in crate::mm) fn bound_compressed_pool(frames: u64) {
    FRAMES.set_sizing(|sizing| sizing.compressed_pool_bound = FrameCount(frames));
}

/// Runs one batch. Returns how many frames are on their way to the disk.
pub(in crate::mm) fn run_batch() -> usize {
    RECLAIMER.lock().run_batch(Urgency::Direct, FrameCount(1)).leaving
}

/// Returns noise, which differs for each page and seed.
pub(in crate::mm) fn noise(page: u64, seed: u64) -> impl Fn(usize) -> u64 {
    move |place| {
        let x = (page ^ seed.rotate_left(17)).wrapping_add(place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

/// Returns half noise and half text, which compresses, but not to a third.
pub(in crate::mm) fn half_noise(page: u64, seed: u64) -> impl Fn(usize) -> u64 {
    let noise = noise(page, seed);
    move |place| if place % 512 < 200 { noise(place) } else { 0x2020_2020_2020_2020 }
}

pub(in crate::mm) fn pages(start: u64, count: u64) -> impl Iterator<Item = u64> + Clone {
    (0..count).map(move |page| start + page * FRAME_BYTES)
}

pub(in crate::mm) fn assert_nothing_is_kept(machine: &TestMachine) {
    while wait_for_disk() {}
    let after = statistics();
    assert_eq!(
        (after.evicted_pages(), after.compressed_pool.frames, after.disk.used_slots),
        (FrameCount::ZERO, FrameCount::ZERO, 0)
    );
    assert_eq!((validate(), machine.statistics().committed), (Ok(()), FrameCount::ZERO));
}

#[test]
fn pages_that_do_not_compress_are_evicted_to_disk() {
    let (machine, _) = machine(8, 4096);
    let start = map_region(APP_REGIONS, 600 * FRAME_BYTES).unwrap();
    for page in pages(start, 600) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 1));
    }
    let free = machine.statistics().free;
    assert!(reclaim(EVERYTHING) >= FrameCount(590));
    assert!(machine.statistics().free.0 >= free.0 + 590);
    assert_eq!(statistics().pages_on_disk, 600);
    for page in pages(start, 600) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 1)(0));
    }
    let after = statistics();
    assert_eq!((after.restores, after.disk.reads, after.pages_on_disk), (600, 600, 0));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn memory_and_disk_can_be_committed_and_no_more() {
    let (machine, _) = machine(8, 4096);
    let total = machine.statistics().available.0;
    assert!(total > 4096 + 7 * HUGE_FRAMES / 2, "memory and disk");
    assert!(map_region(APP_REGIONS, (total + 1) * FRAME_BYTES).is_err());
    let count = total - total.div_ceil(HUGE_FRAMES);
    let start = map_region(APP_REGIONS, count * FRAME_BYTES).expect("all of it");
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 2));
    }
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 2)(0), "page {}", (page - start) / FRAME_BYTES);
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn commit_charges_are_met_by_a_pool_that_could_take_all_memory() {
    let (machine, _) = machine(8, 16_384);
    bound_compressed_pool(EVERYTHING.0); // as large as it may be on a machine much larger than the guest
    let count = 3 * 8 * HUGE_FRAMES;
    let start = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
    for page in pages(start, count) {
        machine.touch(page).expect("the page was committed, and the disk has room");
        machine.fill(page, half_noise(page, 1));
    }
    for page in pages(start, count) {
        machine.touch(page).expect("the page was committed, and the disk has room");
        assert_eq!(machine.word(page), half_noise(page, 1)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn the_oldest_zspages_are_written_to_disk_unchanged() {
    let (machine, _) = machine(8, 1024);
    bound_compressed_pool(16);
    let start = map_region(APP_REGIONS, 600 * FRAME_BYTES).unwrap();
    for page in pages(start, 600) {
        machine.touch(page).unwrap();
        machine.fill(page, half_noise(page, 3));
    }
    reclaim(EVERYTHING);
    while wait_for_disk() {}
    let evicted = statistics();
    assert_eq!(evicted.evicted_pages(), FrameCount(600));
    assert!(evicted.disk.used_slots * 3 <= evicted.pages_on_disk * 2, "three pages or more in two slots: {evicted:?}");
    for page in pages(start, 600) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), half_noise(page, 3)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_page_that_is_touched_while_it_is_written_stays() {
    let (machine, disk) = machine(8, 1024);
    let start = map_region(APP_REGIONS, 64 * FRAME_BYTES).unwrap();
    for page in pages(start, 64) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 4));
    }
    while run_batch() < 64 {}
    assert_eq!(disk.state().under_way.len(), 1);
    for page in pages(start, 32) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 5));
    }
    while wait_for_disk() {}
    let after = statistics();
    assert_eq!((after.pages_on_disk, after.disk.used_slots, after.disk.writes), (32, 32, 64));
    for (number, page) in pages(start, 64).enumerate() {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, if number < 32 { 5 } else { 4 })(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_region_that_ends_while_its_pages_are_written_drops_them() {
    let (machine, _) = machine(8, 1024);
    let start = map_region(APP_REGIONS, 64 * FRAME_BYTES).unwrap();
    for page in pages(start, 64) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 6));
    }
    while run_batch() < 64 {}
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// No thread sees a region any more before its pages are released. Page table entries must follow a
/// zspage that moves in between.
#[test]
fn a_zspage_may_be_written_or_read_while_regions_of_its_pages_end() {
    let (machine, _) = machine(8, 1024);
    let [ending, other] = [12, 13].map(|seed| {
        let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
        for page in pages(start, 300) {
            machine.touch(page).unwrap();
            machine.fill(page, half_noise(page, seed));
        }
        start
    });
    reclaim(EVERYTHING);
    assert_eq!(statistics().compressed_pool.pages, 600);
    bound_compressed_pool(0);
    RECLAIMER.lock().run_batch(Urgency::Direct, FrameCount(1));
    assert!(RECLAIMER.lock().swap.disk.as_ref().unwrap().leaving() > 0);
    let range = shorten(ending, ending).unwrap();
    reclaim(EVERYTHING);
    assert_eq!(statistics().compressed_pool.pages, 0, "all zspages are on disk");
    for page in pages(other, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), half_noise(page, 13)(0));
    }
    release(&range, Fate::Unmapped);
    let region = SPACE.lock().regions.remove(ending, |frame| FRAMES.free(frame)).unwrap();
    FRAMES.uncharge_commit(region.commit_charge);
    unmap_region(other);
    assert_nothing_is_kept(&machine);
}

#[test]
fn only_slots_that_cannot_be_written_are_retired() {
    let (machine, disk) = machine(8, 1024);
    disk.state().unwritable.extend([3, 40, 41]);
    let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
    let available = machine.statistics().available.0;
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 7));
    }
    reclaim(EVERYTHING);
    reclaim(EVERYTHING);
    let evicted = statistics();
    assert_eq!((evicted.disk.slots, evicted.pages_on_disk), (1021, 300), "{evicted:?}");
    assert_eq!(evicted.disk.errors, 4, "the cluster, and three slots");
    assert!(machine.statistics().available.0 <= available - 3, "retired slots back no commit charges");
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 7)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn with_a_disk_that_fails_every_write_all_pages_stay() {
    let (machine, disk) = machine(8, 128);
    disk.state().unwritable.extend(0..128);
    let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 8));
    }
    reclaim(EVERYTHING);
    assert_eq!((statistics().pages_on_disk, statistics().disk.slots), (0, 0));
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 8)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn a_slot_that_cannot_be_read_fails_its_own_pages_only() {
    let (machine, disk) = machine(8, 1024);
    let start = map_region(APP_REGIONS, 64 * FRAME_BYTES).unwrap();
    for page in pages(start, 64) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 9));
    }
    reclaim(EVERYTHING);
    assert_eq!(statistics().pages_on_disk, 64);
    disk.state().unreadable.insert(20);
    let mut failed = 0;
    for page in pages(start, 64) {
        match machine.touch(page) {
            Ok(()) => assert_eq!(machine.word(page), noise(page, 9)(0)),
            Err(error) => {
                assert_eq!(error, FaultError::Disk);
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

#[test]
fn with_a_full_disk_the_other_pages_stay() {
    let (machine, _) = machine(8, 64);
    let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 10));
    }
    assert_eq!(reclaim(EVERYTHING), FrameCount(64));
    assert_eq!(reclaim(EVERYTHING), FrameCount::ZERO);
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 10)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// A run of free slots may end in the middle of a zspage, which is then written elsewhere or stays.
#[test]
fn a_zspage_is_not_divided() {
    let (machine, _) = machine(8, 64);
    let word = |page| {
        let noise = noise(page, 21);
        move |place| if place < 320 { noise(place) } else { 0x2020_2020_2020_2020 }
    };
    let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        machine.fill(page, word(page));
    }
    reclaim(EVERYTHING);
    assert_eq!(
        (statistics().compressed_pool.pages, statistics().compressed_pool.frames),
        (300, FrameCount(200)),
        "three pages in two frames"
    );
    let with_slots = |work: fn(&mut SlotMap)| work(&mut RECLAIMER.lock().swap.disk.as_mut().unwrap().slots);
    with_slots(|slots| {
        slots.take_run(1, 64).unwrap();
        (10..15).for_each(|slot| slots.free_slot(SlotNumber(slot)));
    });
    bound_compressed_pool(0);
    reclaim(FrameCount(2));
    while wait_for_disk() {}
    assert_eq!((statistics().pages_on_disk, statistics().disk.used_slots), (6, 59 + 4), "two zspages of two frames");
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), word(page)(0));
    }
    with_slots(|slots| (0..10).chain(15..64).for_each(|slot| slots.free_slot(SlotNumber(slot))));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// The first free slots of the disk lie apart: zspages are written to the run behind them, and
/// pages to the single slots.
#[test]
fn single_free_slots_do_not_stop_zspages_from_being_written() {
    let (machine, _) = machine(8, 128);
    let start = map_region(APP_REGIONS, 90 * FRAME_BYTES).unwrap();
    let word = |page, place| if place < 320 { noise(page, 22)(place) } else { 0x2020_2020_2020_2020 };
    for page in pages(start, 90) {
        machine.touch(page).unwrap();
        machine.fill(page, |place| word(page, place));
    }
    reclaim(EVERYTHING);
    assert_eq!(statistics().compressed_pool.frames, FrameCount(60), "three pages in two frames");
    let with_slots = |work: fn(&mut SlotMap)| work(&mut RECLAIMER.lock().swap.disk.as_mut().unwrap().slots);
    with_slots(|slots| {
        while slots.take_run(1, 64).is_some() {}
        (0..64).step_by(2).chain(100..104).for_each(|slot| slots.free_slot(SlotNumber(slot)));
    });
    bound_compressed_pool(0);
    reclaim(FrameCount(4));
    while wait_for_disk() {}
    assert_eq!(statistics().pages_on_disk, 6, "two zspages of two frames: {:?}", statistics());
    let noisy = map_region(APP_REGIONS, 32 * FRAME_BYTES).unwrap();
    for page in pages(noisy, 32) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 23));
    }
    reclaim(EVERYTHING);
    while wait_for_disk() {}
    assert_eq!(statistics().pages_on_disk, 6 + 32, "zspages that find no run do not stop pages: {:?}", statistics());
    for page in pages(start, 90) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), word(page, 0));
    }
    unmap_region(noisy);
    with_slots(|slots| {
        (1..64).step_by(2).chain(64..100).chain(104..128).for_each(|slot| slots.free_slot(SlotNumber(slot)));
    });
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Commit charges that rested on the disk stay, and no others are made.
#[test]
fn a_broken_disk_backs_no_new_commit_charges() {
    let (machine, disk) = machine(8, 1024);
    disk.state().unwritable.extend(100..1024);
    let start = map_region(APP_REGIONS, 300 * FRAME_BYTES).unwrap();
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 14));
    }
    let available = machine.statistics().available.0;
    reclaim(EVERYTHING);
    let full = statistics();
    assert_eq!((full.pages_on_disk, full.disk.slots, full.disk.used_slots), (100, 100, 100));
    assert_eq!(machine.statistics().available.0, available - 924);
    for page in pages(start, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 14)(0));
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Readers may fill the disk's queue. A reclaim attempt waits for room then, and does not give up.
#[test]
fn eviction_waits_for_a_busy_disk() {
    let (machine, disk) = machine(8, 1024);
    let start = map_region(APP_REGIONS, 64 * FRAME_BYTES).unwrap();
    for page in pages(start, 64) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 15));
    }
    let frame = machine.frame_at(start).unwrap();
    let others: Vec<_> = (0..DEPTH).map(|_| disk.submit(Direction::Write, SlotNumber(1000), &[frame])).collect();
    assert_eq!(reclaim(EVERYTHING), FrameCount(64));
    for ticket in others.into_iter().flatten() {
        while disk.result(ticket).is_none() {
            disk.finish_one();
        }
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// Other threads may allocate the frames that an attempt has freed while it waits for the disk. The
/// attempt counts them.
#[test]
fn frames_that_other_threads_have_allocated_count_as_freed() {
    let (machine, disk) = machine(8, 1024);
    let start = map_region(APP_REGIONS, 64 * FRAME_BYTES).unwrap();
    for page in pages(start, 64) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 16));
    }
    let free = machine.statistics().free.0;
    disk.state().meanwhile = Some(Box::new(move || {
        for _ in 0..free {
            let _ = FRAMES.allocate(BlockSize::Frame, Purpose::Kernel).unwrap().into_number();
        }
    }));
    assert_eq!(reclaim(EVERYTHING), FrameCount(64));
    assert_eq!(machine.statistics().free, FrameCount(64));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// While a page is read, another thread brings it back, writes to it and evicts it again, to the
/// same slot: what was read is old.
#[test]
fn a_read_is_dropped_if_its_slot_was_used_again() {
    let (machine, disk) = machine(8, 64);
    let other = map_region(APP_REGIONS, 20 * FRAME_BYTES).unwrap();
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.fill(start, noise(start, 17));
    reclaim(EVERYTHING);
    assert!(disk.state().contents.contains_key(&0));
    disk.state().meanwhile = Some(Box::new(move || {
        read_fault(start).unwrap();
        fill(start, noise(start, 18));
        reclaim(EVERYTHING);
    }));
    read_fault(start).unwrap();
    assert_eq!((statistics().disk.writes, statistics().disk.used_slots), (2, 1), "the slot holds the page again");
    machine.touch(start).unwrap();
    assert_eq!(machine.word(start), noise(start, 18)(0));
    unmap_region(start);
    unmap_region(other);
    assert_nothing_is_kept(&machine);
}

/// Another thread that restores the same page may have drawn the last commit charge. That is not
/// the end of memory: the access faults again.
#[test]
fn two_threads_may_touch_the_only_evicted_page() {
    let (machine, disk) = machine(8, 64);
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.fill(start, noise(start, 20));
    reclaim(EVERYTHING);
    disk.state().meanwhile = Some(Box::new(move || assert_eq!(read_fault(start), Ok(()), "and the fault comes again")));
    machine.touch(start).unwrap();
    assert_eq!(machine.word(start), noise(start, 20)(0));
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// The frames of a read may be the last that there are. Another thread that finds none waits until
/// the read has ended.
#[test]
fn a_thread_can_wait_for_the_reads_of_others() {
    static FOUND: AtomicBool = AtomicBool::new(false);
    let (machine, disk) = machine(8, 64);
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.fill(start, noise(start, 21));
    reclaim(EVERYTHING);
    while wait_for_disk() {}
    assert!(!wait_for_reads(), "a write is no read");
    disk.state().meanwhile = Some(Box::new(|| FOUND.store(wait_for_reads(), Ordering::Relaxed)));
    machine.touch(start).unwrap();
    assert!(FOUND.load(Ordering::Relaxed), "another thread can't wait for this read");
    assert!(!wait_for_reads(), "it has ended");
    unmap_region(start);
    assert_nothing_is_kept(&machine);
}

/// A region may end while one of its pages is read.
#[test]
fn a_read_for_a_region_that_has_ended_is_dropped() {
    let (machine, disk) = machine(8, 64);
    let start = map_region(APP_REGIONS, 20 * FRAME_BYTES).unwrap();
    for page in pages(start, 20) {
        machine.touch(page).unwrap();
        machine.fill(page, noise(page, 19));
    }
    reclaim(EVERYTHING);
    disk.state().meanwhile = Some(Box::new(move || unmap_region(start)));
    read_fault(start).unwrap();
    assert!(matches!(read_fault(start), Err(FaultError::Violation(_))));
    assert_nothing_is_kept(&machine);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn memory_holds_what_was_written_wherever_it_was_stored(
        bound in 0_u64..40,
        unwritable in vec(0_u32..640, 0..12),
        steps in vec((0_u64..1100, 0_u8..10, any::<u64>()), 1..120),
    ) {
        let (machine, disk) = machine(6, 640);
        bound_compressed_pool(bound);
        disk.state().unwritable.extend(unwritable);
        let mut start = map_region(APP_REGIONS, 1100 * FRAME_BYTES).unwrap();
        let mut written: BTreeMap<u64, (bool, u64)> = BTreeMap::new();
        let word = |page, (is_noise, seed): (bool, u64)| {
            if is_noise { noise(page, seed)(0) } else { half_noise(page, seed)(0) }
        };
        for (page, action, value) in steps {
            let at = start + page * FRAME_BYTES;
            match action {
                0 | 1 => drop(reclaim(FrameCount(value % 600))),
                2 => drop(run_batch()),
                3 => disk.finish_one(),
                4 if value % 8 == 0 => {
                    unmap_region(start);
                    written.clear();
                    start = map_region(APP_REGIONS, 1100 * FRAME_BYTES).unwrap();
                }
                4..=6 => {
                    machine.touch(at).unwrap();
                    let found = machine.word(at);
                    prop_assert_eq!(found, written.get(&page).map_or(0, |&how| word(page, how)));
                }
                _ => for page in page..(page + value % 64).min(1100) {
                    let at = start + page * FRAME_BYTES;
                    machine.touch(at).unwrap();
                    let how = (value % 2 == 0, value);
                    if how.0 { machine.fill(at, noise(page, value)) } else { machine.fill(at, half_noise(page, value)) }
                    written.insert(page, how);
                }
            }
            prop_assert_eq!(validate(), Ok(()));
        }
        for (page, how) in written {
            let at = start + page * FRAME_BYTES;
            machine.touch(at).unwrap();
            prop_assert_eq!(machine.word(at), word(page, how));
        }
        unmap_region(start);
        assert_nothing_is_kept(&machine);
        prop_assert_eq!(FRAMES.statistics().committed, FrameCount::ZERO);
    }
}
