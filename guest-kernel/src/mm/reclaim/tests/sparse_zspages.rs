//! Zspages that lose most of their pages: what was committed is found all the same.

use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_reclaim_policy::Name;

use crate::layout::APP_REGIONS;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::reclaim::tests::swap_disk::{noise, pages};
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
