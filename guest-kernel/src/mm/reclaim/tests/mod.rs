//! Eviction and return on a machine of ordinary memory: what was written is what is read, and no
//! frame is lost on the way.
//!
//! Nothing sets accessed bits here but the tests' own faults, so pages that are not touched again
//! are cold.

mod corrupt_disk;
mod full_disk;
mod sparse_zspages;
pub(in crate::mm) mod swap_disk;

use std::collections::BTreeMap;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_BYTES, HUGE_FRAMES, to_usize};
use aerostat_reclaim_policy::Name;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, prop_oneof, proptest};

use crate::config::FAULT_AROUND_PAGES;
use crate::layout::APP_REGIONS;
use crate::mm::reclaim::scan::effort::{Effort, Efforts};
use crate::mm::reclaim::scan::hand::BATCH;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::reclaim::{
    RECLAIMER, filled_with, reclaim, reclaim_ahead, statistics, swap::compressed_pool::CompressedPool,
};
use crate::mm::slice::CHANCES;
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{Block, BlockSize, FRAMES, Purpose, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);

fn machine(huge_frames: u64) -> TestMachine {
    let machine = TestMachine::start(huge_frames);
    let total = FrameCount(huge_frames * HUGE_FRAMES);
    start(Swap { policy: Name::default(), compressed: total, disk: None });
    machine
}

#[test]
fn cold_pages_leave_and_come_back_as_they_were() {
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
fn the_background_can_rest_after_each_batch_and_nobody_else_does() {
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
    assert_eq!(touch_and_reclaim(reclaim), 0, "whoever needs a frame has no time to rest");
    let batches = 4 * HUGE_FRAMES / BATCH as u64;
    assert!(touch_and_reclaim(reclaim_ahead) >= batches);
}

#[test]
fn a_region_that_ends_takes_its_evicted_pages_along() {
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
fn what_does_not_compress_stays() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, FRAME_BYTES).unwrap();
    machine.touch(start).unwrap();
    machine.fill(start, |place| (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    assert_eq!(reclaim(EVERYTHING), FrameCount::ZERO);
    assert!(machine.frame_at(start).is_some());
    assert!(statistics().incompressible > 0);
}

#[test]
fn a_promise_pushes_cold_pages_out() {
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
fn neighbours_come_along_while_memory_is_plenty() {
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

#[test]
fn a_page_of_one_word_is_found() {
    let mut page = [0xa5; FRAME_SIZE];
    assert_eq!(filled_with(&page), Some(0xa5a5_a5a5));
    page[FRAME_SIZE - 1] = 0;
    assert_eq!(filled_with(&page), None);
}

/// What happens to the compressed pool in the property below.
#[derive(Clone, Debug)]
enum Step {
    /// Keep a page with so many bytes that don't repeat.
    Store { noise: usize, seed: u64 },
    /// Forget one of those kept.
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let store = (0..3400_usize, any::<u64>()).prop_map(|(noise, seed)| Step::Store { noise, seed });
    vec(prop_oneof![2 => store, 1 => any::<usize>().prop_map(Step::Drop)], 1..120)
}

/// A page that begins with `noise` bytes that don't compress.
fn noisy_page(noise: usize, mut seed: u64) -> [u8; FRAME_SIZE] {
    let mut page = [b' '; FRAME_SIZE];
    for byte in &mut page[..noise] {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = seed.to_le_bytes()[7];
    }
    page
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_tier_keeps_what_it_was_given(steps in steps()) {
        let machine = machine(8);
        let free = machine.statistics().free;
        let mut compressed_pool = CompressedPool::new();
        let mut kept = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Store { noise, seed } => {
                    let page = noisy_page(noise, seed);
                    let frame = || FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool);
                    if let Ok(place) = compressed_pool.store(0x1000 * number as u64, &page, frame, give_back) {
                        kept.insert(number, (place, page));
                    }
                }
                Step::Drop(choice) if !kept.is_empty() => {
                    let key = *kept.keys().nth(choice % kept.len()).unwrap();
                    let (place, _) = kept.remove(&key).unwrap();
                    compressed_pool.drop_page(place, give_back);
                }
                Step::Drop(_) => {}
            }
            for (place, page) in kept.values() {
                let mut loaded = [0; FRAME_SIZE];
                prop_assert_eq!((compressed_pool.load(*place, &mut loaded), loaded == *page), (true, true));
            }
            let frames = free.saturating_sub(machine.statistics().free);
            prop_assert_eq!((compressed_pool.statistics().pages, compressed_pool.statistics().frames), (kept.len() as u64, frames));
        }
        for (place, _) in kept.into_values() {
            compressed_pool.drop_page(place, give_back);
        }
        prop_assert_eq!(machine.statistics().free, free);
    }

    #[test]
    fn memory_is_what_was_written_whatever_is_evicted(steps in vec((0_u64..1100, 0_u8..4, any::<u64>()), 1..80)) {
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

fn give_back(frame: Block) {
    FRAMES.free_in_headroom(frame);
}

/// Turns the hand until it has come round.
fn round() {
    while !RECLAIMER.lock().run_batch().ended_round {}
}

#[test]
fn the_working_set_is_known_by_age() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, HUGE_BYTES + 96 * FRAME_BYTES).unwrap();
    let pages: Vec<u64> = (0..96).map(|page| start + HUGE_BYTES + page * FRAME_BYTES).collect();
    pages.iter().chain([&start]).for_each(|&page| machine.touch(page).unwrap());
    pages.iter().for_each(|&page| machine.set_word(page, page));
    round();
    assert_eq!(statistics().ages, [0, 0, 0, HUGE_FRAMES + 96], "nobody has used them again");
    pages[..32].iter().chain([&start]).for_each(|&page| machine.access(page));
    round();
    assert_eq!(statistics().ages, [HUGE_FRAMES + 32, 0, 0, 0], "the others have left");
    for (used, expected) in [(8, [HUGE_FRAMES + 8, 24, 0, 0]), (4, [HUGE_FRAMES + 4, 0, 0, 4])] {
        pages[..used].iter().chain([&start]).for_each(|&page| machine.access(page));
        round();
        assert_eq!(statistics().ages, expected, "where nothing leaves, the policy ages faster");
    }
}

#[test]
fn reclaim_is_on_the_account_of_who_wanted_it() {
    let machine = machine(8);
    let start = map_region(APP_REGIONS, 2 * HUGE_BYTES).unwrap();
    let pages: Vec<u64> = (start..start + 2 * HUGE_BYTES).step_by(FRAME_SIZE).collect();
    for &page in &pages {
        machine.touch(page).unwrap();
        machine.set_word(page, page);
    }
    reclaim_ahead(FrameCount(40));
    let Efforts { background, direct, .. } = statistics().efforts;
    assert!(background.scanned >= background.freed && background.freed >= 40, "{background:?}");
    assert_eq!(direct, Effort::default());
    let asked = reclaim(FrameCount(30));
    let after = statistics().efforts;
    assert_eq!((after.background, after.direct.freed), (background, asked.0));
    assert!(after.direct.scanned >= 30);
}
