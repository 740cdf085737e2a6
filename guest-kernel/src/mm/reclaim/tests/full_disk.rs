//! A disk without a free slot: pages that need none are still evicted, and a fault finds a frame
//! for a page that was committed.

use aerostat_abi::units::{FRAME_BYTES, FrameCount};
use aerostat_reclaim_policy::Name;

use crate::layout::APP_REGIONS;
use crate::mm::reclaim::swap::slow_disk::SlowDisk;
use crate::mm::reclaim::tests::swap_disk::{bound_compressed_pool, half_noise, machine, noise, pages};
use crate::mm::reclaim::{reclaim, statistics};
use crate::mm::testing::TestMachine;
use crate::mm::{advice, file, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);
const FILE_PAGES: u64 = 300;

/// Maps a file and reads all of it.
fn read_a_file(machine: &TestMachine) -> u64 {
    let disk = SlowDisk::leaked(FILE_PAGES);
    for page in 0..FILE_PAGES {
        let contents: Vec<u8> = (0..512).flat_map(|_| page.to_le_bytes()).collect();
        disk.state().contents.insert(u32::try_from(page).unwrap(), contents.into_boxed_slice());
    }
    let start = file::map(disk, FILE_PAGES * FRAME_BYTES, Name::default()).unwrap();
    pages(start, FILE_PAGES).for_each(|page| machine.touch(page).unwrap());
    assert_eq!(statistics().file_pages, FILE_PAGES);
    start
}

/// Creates a region of `count` pages, and writes `word` to them.
fn written<W: Fn(usize) -> u64>(machine: &TestMachine, count: u64, word: impl Fn(u64) -> W) -> u64 {
    let start = map_region(APP_REGIONS, count * FRAME_BYTES).unwrap();
    for page in pages(start, count) {
        machine.touch(page).unwrap();
        machine.fill(page, word(page));
    }
    start
}

#[test]
fn pages_that_need_no_slot_are_evicted_while_the_disk_is_full() {
    let (machine, _) = machine(8, 64);
    let kept = written(&machine, 300, |page| noise(page, 1));
    assert_eq!(reclaim(EVERYTHING), FrameCount(64));
    let unneeded = written(&machine, 40, |page| noise(page, 2));
    let filled = written(&machine, 50, |_| |_| 0x0101_0101_0101_0101);
    let file = read_a_file(&machine);
    advice::discard_lazily(&(unneeded..unneeded + 40 * FRAME_BYTES));

    assert_eq!(reclaim(EVERYTHING), FrameCount(FILE_PAGES + 40 + 50));
    let after = statistics();
    assert_eq!((after.file_pages, after.discards, after.filled_pages, after.disk.used_slots), (0, 40, 50, 64));
    for page in pages(kept, 300) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), noise(page, 1)(0));
    }
    machine.touch(file + 7 * FRAME_BYTES).unwrap();
    assert_eq!(machine.word(file + 7 * FRAME_BYTES), 7);
    [kept, unneeded, filled].into_iter().for_each(unmap_region);
    assert_eq!(validate(), Ok(()));
}

/// The compressed pool is far beyond its bound, and none of it can leave.
#[test]
fn file_pages_are_dropped_while_disk_and_pool_are_full() {
    let (machine, _) = machine(8, 64);
    bound_compressed_pool(0);
    let kept = written(&machine, 600, |page| half_noise(page, 3));
    reclaim(EVERYTHING);
    assert!(statistics().disk.used_slots > 60, "{:?}", statistics());
    read_a_file(&machine);
    reclaim(EVERYTHING);
    assert_eq!((statistics().file_pages, statistics().evicted_pages()), (0, FrameCount(600)), "{:?}", statistics());
    for page in pages(kept, 600) {
        machine.touch(page).unwrap();
        assert_eq!(machine.word(page), half_noise(page, 3)(0));
    }
    unmap_region(kept);
    assert_eq!(validate(), Ok(()));
}
