//! A mapped file on a machine of ordinary memory: what is read is what is on the disk, however
//! little memory there is.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, HUGE_FRAMES};
use aerostat_reclaim_policy::Name;
use proptest::collection::vec;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert_eq, proptest};

use super::map;
use crate::config::READ_AHEAD;
use crate::layout::APP_REGIONS;
use crate::mm::fault::FaultError;
use crate::mm::reclaim::swap::slow_disk::SlowDisk;
use crate::mm::reclaim::{first_visits, reclaim, statistics};
use crate::mm::testing::TestMachine;
use crate::mm::watermarks::Watermarks;
use crate::mm::{FRAMES, map_region, unmap_region, validate};

const EVERYTHING: FrameCount = FrameCount(1 << 20);

/// A machine that has mapped a file of so many pages, in which each word is its page's number and
/// its own, and the last half page is missing.
fn machine(huge_frames: u64, pages: u32) -> (TestMachine, &'static SlowDisk, u64) {
    let machine = TestMachine::start(huge_frames);
    let disk = SlowDisk::leaked(pages.into());
    for page in 0..pages {
        let contents: Vec<u8> = (0..512).flat_map(|place| word(page.into(), place).to_le_bytes()).collect();
        disk.state().contents.insert(page, contents.into_boxed_slice());
    }
    let start = map(disk, u64::from(pages) * FRAME_BYTES, Name::default()).unwrap();
    FRAMES.set_watermarks(Watermarks { low: FrameCount::ZERO, ..FRAMES.watermarks() });
    (machine, disk, start)
}

fn word(page: u64, place: u64) -> u64 {
    (page << 16 | place) + 1
}

fn read(machine: &TestMachine, start: u64, page: u64) -> Result<u64, FaultError> {
    let at = start + page * FRAME_BYTES;
    machine.touch(at)?;
    Ok(machine.word(at))
}

#[test]
fn a_page_comes_with_those_behind_it() {
    let (machine, disk, start) = machine(8, 600);
    assert_eq!(read(&machine, start, 100), Ok(word(100, 0)));
    assert_eq!(statistics().file_pages, READ_AHEAD as u64);
    assert!(machine.frame_at(start + 99 * FRAME_BYTES).is_none());
    for page in 100..100 + READ_AHEAD as u64 {
        assert_eq!(machine.word(start + page * FRAME_BYTES), word(page, 0));
    }
    assert_eq!(read(&machine, start, 599), Ok(word(599, 0)), "the last one is alone");
    assert!(disk.state().under_way.is_empty());
    assert_eq!(validate(), Ok(()));
}

#[test]
fn files_take_no_memory_of_applications() {
    let (machine, _, start) = machine(8, 4000);
    let available = machine.statistics().available;
    for page in 0..3000 {
        assert_eq!(read(&machine, start, page), Ok(word(page, 0)));
    }
    // Page tables were committed; a table above them is the kernel's.
    assert!(available.saturating_sub(machine.statistics().available) <= FrameCount(2));
    let memory = map_region(APP_REGIONS, (available.0 - 20) * FRAME_BYTES).expect("files make room");
    for page in 0..available.0 - 20 {
        machine.touch(memory + page * FRAME_BYTES).unwrap();
    }
    assert_eq!(read(&machine, start, 17), Ok(word(17, 0)), "there is always room for some pages");
    unmap_region(memory);
    assert_eq!(validate(), Ok(()));
}

#[test]
fn what_is_dropped_is_read_again() {
    let (machine, _, start) = machine(8, 600);
    for page in 0..600 {
        assert_eq!(read(&machine, start, page), Ok(word(page, 0)));
    }
    let (evictions, free) = (statistics().evictions, machine.statistics().free);
    assert!(reclaim(EVERYTHING) >= FrameCount(600));
    assert_eq!((statistics().evictions - evictions, statistics().file_pages), (600, 0));
    assert!(machine.statistics().free.0 >= free.0 + 600);
    for page in (0..600).rev() {
        assert_eq!(read(&machine, start, page), Ok(word(page, 0)));
    }
    assert_eq!(validate(), Ok(()));
}

#[test]
fn pages_visited_ahead_of_the_hand_go_with_its_first_visit() {
    let (machine, _, start) = machine(8, 600);
    (0..600).for_each(|page| machine.access(start + page * FRAME_BYTES));
    assert!(first_visits::are_due());
    first_visits::visit(|| ());
    assert!(!first_visits::are_due());
    machine.access(start + 100 * FRAME_BYTES);
    assert!(reclaim(FrameCount(590)) >= FrameCount(590));
    assert!(statistics().efforts.direct.scanned <= 600, "a second pass was needed");
    assert!(machine.frame_at(start + 100 * FRAME_BYTES).is_some(), "it was used again");
    assert_eq!(validate(), Ok(()));
}

#[test]
fn a_page_that_cannot_be_read_harms_no_other() {
    let (machine, disk, start) = machine(8, 64);
    disk.state().unreadable.insert(20);
    let failed: Vec<u64> = (0..64).filter(|&page| read(&machine, start, page).is_err()).collect();
    assert_eq!(failed, [20]);
    assert_eq!(read(&machine, start, 20), Err(FaultError::Disk));
    assert_eq!(validate(), Ok(()));
}

#[test]
fn beyond_the_end_of_a_file_there_is_nothing_to_read() {
    let machine = TestMachine::start(8);
    let disk = SlowDisk::leaked(2);
    let page = |byte| vec![byte; FRAME_SIZE].into_boxed_slice();
    disk.state().contents.extend([(0, page(1)), (1, page(2))]);
    let start = map(disk, FRAME_BYTES + 512, Name::default()).unwrap();
    machine.touch(start + FRAME_BYTES).unwrap();
    assert!(matches!(machine.touch(start + 2 * FRAME_BYTES), Err(FaultError::Violation(_))));
    assert_eq!(map(disk, FRAME_BYTES + 512, Name::default()), Ok(start), "there is one such region");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_what_is_on_the_disk(steps in vec((0_u64..2000, 0_u8..8), 1..150)) {
        let (machine, _, start) = machine(6, 2000);
        let mut regions = Vec::new();
        for (number, action) in steps {
            match action {
                0 => drop(reclaim(FrameCount(number))),
                1 => {
                    let bytes = (number + 1) * FRAME_BYTES / 2;
                    if let Ok(region) = map_region(APP_REGIONS, bytes) {
                        for at in (region..region + bytes).step_by(FRAME_SIZE) {
                            machine.touch(at).unwrap();
                            machine.set_word(at, at);
                        }
                        regions.push((region, bytes));
                    }
                }
                2 => if let Some((region, bytes)) = regions.pop() {
                    for at in (region..region + bytes).step_by(FRAME_SIZE) {
                        machine.touch(at).unwrap();
                        prop_assert_eq!(machine.word(at), at);
                    }
                    unmap_region(region);
                },
                _ => prop_assert_eq!(read(&machine, start, number), Ok(word(number, 0))),
            }
            prop_assert_eq!(validate(), Ok(()));
        }
        prop_assert_eq!(statistics().file_pages > HUGE_FRAMES * 6, false);
    }
}
