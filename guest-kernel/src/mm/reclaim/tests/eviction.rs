//! Eviction and restore without a disk, on a machine of ordinary memory: a page holds what was
//! written to it, and no frame is lost.
//!
//! Only the tests' own faults set accessed bits, so pages that are not touched again are cold.

use std::collections::BTreeMap;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, HUGE_FRAMES, to_usize};
use aerostat_reclaim_policy::Name;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, proptest};

use crate::config::FAULT_AROUND_PAGES;
use crate::layout::APP_REGIONS;
use crate::mm::reclaim::scan::efforts::Urgency;
use crate::mm::reclaim::scan::efforts::{Effort, Efforts};
use crate::mm::reclaim::scan::hand::BATCH;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::reclaim::{RECLAIMER, reclaim, reclaim_in_background, statistics};
use crate::mm::slice::CHANCES;
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{FRAMES, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);

fn machine(huge_frames: u64) -> TestMachine {
    let machine = TestMachine::start(huge_frames);
    let total = FrameCount(huge_frames * HUGE_FRAMES);
    start(Swap { policy: Name::default(), compressed: total, disk: None });
    machine
}

#[test]
fn cold_pages_are_evicted_and_restored_unchanged() {
    let machine = machine(8);
    let before = machine.statistics();
    let start = map_region(APP_REGIONS, HUGE_BYTES + 8 * FRAME_BYTES).unwrap();
    let pages: Vec<u64> = (0..HUGE_FRAMES + 8).map(|page| start + page * FRAME_BYTES).collect();
    for &page in &pages {
        machine.touch(page).unwrap();
        machine.set_word(page, page.wrapping_mul(0x9e37_79b9));
    }
    let in_use = machine.statistics();
    assert!(reclaim(EVERYTHING) > FrameCount(HUGE_FRAMES / 2));
    let reclaimed = statistics();
    assert_eq!(reclaimed.evicted_pages(), FrameCount(pages.len() as u64));
    assert!(machine.statistics().free > in_use.free);
    assert!(pages.iter().all(|&page| machine.frame_at(page).is_none()));
    for &page in &pages {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), page.wrapping_mul(0x9e37_79b9));
    }
    assert_eq!(statistics().restores, pages.len() as u64);
    assert_eq!(statistics().evicted_pages(), FrameCount::ZERO);
    unmap_region(start);
    assert_eq!(validate(), Ok(()));
    let after = machine.statistics();
    // The tables above the region's own stay.
    assert!(before.free.0 - after.free.0 <= 2 && after.committed == before.committed);
}

#[test]
fn only_background_reclaim_rests_after_each_batch() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, 4 * HUGE_BYTES).unwrap();
    let touch_and_reclaim = |reclaim: fn(FrameCount) -> FrameCount| {
        for page in (start..start + 4 * HUGE_BYTES).step_by(FRAME_SIZE) {
            machine.touch(page).unwrap();
        }
        let chances = CHANCES.get();
        assert!(reclaim(EVERYTHING) > FrameCount::ZERO);
        CHANCES.get() - chances
    };
    assert_eq!(touch_and_reclaim(reclaim), 0, "a thread that needs a frame does not rest");
    let batches = 4 * HUGE_FRAMES / BATCH as u64;
    assert!(touch_and_reclaim(reclaim_in_background) >= batches);
}

#[test]
fn a_region_that_ends_drops_its_evicted_pages() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, 2 * HUGE_BYTES).unwrap();
    machine.touch(start).unwrap();
    let before = machine.statistics();
    for page in (start..start + HUGE_BYTES).step_by(FRAME_SIZE) {
        machine.set_word(page, 7);
    }
    reclaim(EVERYTHING);
    assert!(statistics().compressed_pool.pages > 0);
    unmap_region(start);
    let after = statistics();
    assert_eq!((after.evicted_pages(), after.compressed_pool.frames), (FrameCount::ZERO, FrameCount::ZERO));
    assert!(machine.statistics().free > before.free);
    assert_eq!((validate(), machine.statistics().committed), (Ok(()), FrameCount::ZERO));
}

#[test]
fn pages_that_do_not_compress_stay() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.fill(start, |place| (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    assert_eq!(reclaim(EVERYTHING), FrameCount::ZERO);
    assert!(machine.frame_at(start).is_some());
    assert!(statistics().incompressible > 0);
}

#[test]
fn a_commit_charge_evicts_cold_pages() {
    let machine = machine(8);
    let first = map_region(APP_REGIONS, 5 * HUGE_BYTES).unwrap();
    for page in (first..first + 5 * HUGE_BYTES).step_by(FRAME_SIZE) {
        machine.touch(page).unwrap();
        machine.set_word(page, page);
    }
    let second = map_region(APP_REGIONS, 5 * HUGE_BYTES).expect("the first region's pages make room");
    for page in (second..second + 5 * HUGE_BYTES).step_by(FRAME_SIZE) {
        machine.touch(page).unwrap();
    }
    for page in (first..first + 5 * HUGE_BYTES).step_by(FRAME_SIZE) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), page);
    }
    unmap_region(first);
    unmap_region(second);
    assert_eq!(validate(), Ok(()));
}

#[test]
fn neighbours_are_restored_while_frames_can_be_spared() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, HUGE_BYTES).unwrap();
    let pages: Vec<u64> = (start..start + HUGE_BYTES).step_by(FRAME_SIZE).collect();
    for &page in &pages {
        machine.touch(page).unwrap();
        machine.set_word(page, page);
    }
    let in_memory = || pages.iter().filter(|&&page| machine.frame_at(page).is_some()).count() as u64;
    reclaim(EVERYTHING);
    assert_eq!(in_memory(), 0);
    machine.touch(pages[40]).unwrap();
    assert_eq!((in_memory(), statistics().restores), (FAULT_AROUND_PAGES, FAULT_AROUND_PAGES));
    let around = 40 - 40 % to_usize(FAULT_AROUND_PAGES);
    for &page in &pages[around..around + to_usize(FAULT_AROUND_PAGES)] {
        assert_eq!(machine.word(page), page);
    }
    let low = FrameCount(8 * HUGE_FRAMES);
    FRAMES.set_watermarks(Watermarks { low, ..FRAMES.watermarks() });
    machine.touch(pages[100]).unwrap();
    assert_eq!(in_memory(), FAULT_AROUND_PAGES + 1);
    unmap_region(start);
    assert_eq!((validate(), statistics().evicted_pages()), (Ok(()), FrameCount::ZERO));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_holds_what_was_written_whatever_is_evicted(steps in vec((0_u64..1100, 0_u8..4, any::<u64>()), 1..80)) {
        let machine = machine(8);
        let start = map_region(APP_REGIONS, 1100 * FRAME_BYTES).unwrap();
        let mut written: BTreeMap<u64, u64> = BTreeMap::new();
        for (page, action, value) in steps {
            let at = start + page * FRAME_BYTES;
            match action {
                0 => drop(reclaim(FrameCount(value % 600))),
                1 => {
                    machine.touch(at).unwrap();
                    prop_assert_eq!(machine.word(at), written.get(&page).copied().unwrap_or(0));
                }
                _ => {
                    machine.touch(at).unwrap();
                    machine.set_word(at, value);
                    written.insert(page, value);
                }
            }
            prop_assert_eq!(validate(), Ok(()));
        }
        for (page, value) in written {
            let at = start + page * FRAME_BYTES;
            machine.touch(at).unwrap();
            prop_assert_eq!(machine.word(at), value);
        }
        unmap_region(start);
        let after = (statistics().evicted_pages(), machine.statistics().committed, validate());
        prop_assert_eq!(after, (FrameCount::ZERO, FrameCount::ZERO, Ok(())));
    }
}

/// Runs batches until a scan ends.
fn scan() {
    while !RECLAIMER.lock().run_batch(Urgency::Direct, FrameCount(1)).has_ended_scan {}
}

#[test]
fn the_working_set_is_counted_by_age() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, HUGE_BYTES + 96 * FRAME_BYTES).unwrap();
    let pages: Vec<u64> = (0..96).map(|page| start + HUGE_BYTES + page * FRAME_BYTES).collect();
    pages.iter().chain([&start]).for_each(|&page| machine.touch(page).unwrap());
    pages.iter().for_each(|&page| machine.set_word(page, page));
    scan();
    assert_eq!(statistics().ages, [0, 0, 0, HUGE_FRAMES + 96], "none was used again");
    pages[..32].iter().chain([&start]).for_each(|&page| machine.access(page));
    scan();
    assert_eq!(statistics().ages, [HUGE_FRAMES + 32, 0, 0, 0], "the others were evicted");
    for (used, expected) in [(8, [HUGE_FRAMES + 8, 24, 0, 0]), (4, [HUGE_FRAMES + 4, 0, 0, 4])] {
        pages[..used].iter().chain([&start]).for_each(|&page| machine.access(page));
        scan();
        assert_eq!(statistics().ages, expected, "where nothing is evicted, the policy ages faster");
    }
}

#[test]
fn reclaim_is_attributed_by_urgency() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, 2 * HUGE_BYTES).unwrap();
    let pages: Vec<u64> = (start..start + 2 * HUGE_BYTES).step_by(FRAME_SIZE).collect();
    for &page in &pages {
        machine.touch(page).unwrap();
        machine.set_word(page, page);
    }
    reclaim_in_background(FrameCount(40));
    let Efforts { background, direct, .. } = statistics().efforts;
    assert!(background.scanned >= background.freed && background.freed >= 40, "{background:?}");
    assert_eq!(direct, Effort::default());
    let asked = reclaim(FrameCount(30));
    let after = statistics().efforts;
    assert_eq!((after.background, after.direct.freed), (background, asked.0));
    assert!(after.direct.scanned >= 30);
}
