//! Zspages that lose most of their pages, in memory and on disk: memory that was committed can be
//! had all the same.

use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_reclaim_policy::Name;

use crate::layout::APP_REGIONS;
use crate::mm::reclaim::attempt::wait_for_disk;
use crate::mm::reclaim::scan::hand::BATCH;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::reclaim::tests::swap_disk::{self, assert_nothing_is_kept, bound_compressed_pool, noise, pages};
use crate::mm::reclaim::{reclaim, statistics};
use crate::mm::testing::TestMachine;
use crate::mm::{advice, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);
/// Frames that the page tables of the region need at most.
const PAGE_TABLES: u64 = 16;

/// Mostly noise: four of these take a zspage of three frames.
fn mostly_noise(page: u64, seed: u64) -> impl Fn(usize) -> u64 {
    let noise = noise(page, seed);
    move |place| if place % 512 < 350 { noise(place) } else { 0x2020_2020_2020_2020 }
}

#[test]
fn sparse_zspages_in_memory_leave_room_for_what_was_committed() {
    for kept_of_four in 1..4 {
        let machine = TestMachine::start(8);
        start(Swap { policy: Name::default(), compressed: FrameCount::ZERO, disk: None });
        let count = machine.statistics().available.0 - PAGE_TABLES;
        let region = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
        let (part, rest) = (count / 4 * 3, count / 4 * 3..count);
        for page in pages(region, part) {
            machine.touch(page).unwrap();
            machine.fill(page, mostly_noise(page, 1));
        }
        reclaim(EVERYTHING);
        assert!(statistics().compressed_pool.pages > part / 2, "{:?}", statistics());
        let (kept, discarded): (Vec<u64>, Vec<u64>) =
            pages(region, part).partition(|page| (page - region) / FRAME_BYTES % 4 < kept_of_four);
        discarded.iter().for_each(|page| advice::discard(&(*page..*page + FRAME_BYTES)));
        for page in discarded.into_iter().chain(rest.map(|page| region + page * FRAME_BYTES)) {
            machine.touch(page).unwrap_or_else(|error| {
                panic!("{error:?}: {:?}, {:?}", machine.statistics(), statistics().compressed_pool)
            });
            machine.fill(page, noise(page, 2));
        }
        for page in kept {
            machine.touch(page).unwrap();
            let word = mostly_noise(page, 1);
            assert_eq!((machine.word(page), validate()), (word(0), Ok(())));
        }
        unmap_region(region);
        assert_eq!((statistics().compressed_pool.frames, validate()), (FrameCount::ZERO, Ok(())));
    }
}

/// The disk is full of zspages that have lost most of their pages. Pages that do not compress need
/// their slots.
#[test]
fn sparse_zspages_on_disk_leave_room_for_what_was_committed() {
    const SLOTS: u64 = 1024;
    for kept_of_four in 1..3 {
        let (machine, _) = swap_disk::machine(8, SLOTS);
        bound_compressed_pool(0);
        let count = machine.statistics().available.0 - PAGE_TABLES;
        let region = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
        let part = SLOTS / 3 * 4;
        for page in pages(region, part) {
            machine.touch(page).unwrap();
            machine.fill(page, mostly_noise(page, 1));
        }
        for _ in 0..SLOTS / BATCH as u64 {
            reclaim(EVERYTHING); // writes back a batch of the pool
        }
        while wait_for_disk() {}
        bound_compressed_pool(64);
        assert!(statistics().pages_on_disk > part / 10 * 9, "{:?}", statistics());
        let is_kept =
            |page: u64| page < region + part * FRAME_BYTES && (page - region) / FRAME_BYTES % 4 < kept_of_four;
        for page in pages(region, part).filter(|page| !is_kept(*page)) {
            advice::discard(&(page..page + FRAME_BYTES));
        }
        for page in pages(region, count).filter(|page| !is_kept(*page)) {
            machine.touch(page).unwrap_or_else(|error| {
                panic!("{error:?} at page {}: {:?}", (page - region) / FRAME_BYTES, statistics())
            });
            machine.fill(page, noise(page, 2));
        }
        for page in pages(region, count) {
            machine.touch(page).unwrap();
            let expected = if is_kept(page) { mostly_noise(page, 1)(0) } else { noise(page, 2)(0) };
            assert_eq!(machine.word(page), expected, "page {}", (page - region) / FRAME_BYTES);
        }
        unmap_region(region);
        assert_nothing_is_kept(&machine);
    }
}
