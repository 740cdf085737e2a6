//! A disk that returns something else than it was given: a fault on what is lost fails, each time,
//! and nothing else does.

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount};

use crate::layout::APP_REGIONS;
use crate::mm::fault::FaultError;
use crate::mm::page_table::PageState;
use crate::mm::reclaim::swap::entry::Stored;
use crate::mm::reclaim::tests::swap_disk::{assert_nothing_is_kept, bound_compressed_pool, half_noise, machine, pages};
use crate::mm::reclaim::{reclaim, statistics};
use crate::mm::{SPACE, map_region, unmap_region};

const PAGES: u64 = 64;
const HEADER_BYTES: usize = 64;
/// Of the class with two objects in a frame, to which half noise compresses.
const OBJECT_BYTES: usize = (FRAME_SIZE - HEADER_BYTES) / 2;

/// Which group is damaged: not the last that is read, so that it is also read ahead.
const DAMAGED: u64 = 20;

/// Slot of the page's group, and the page's number in it.
fn place(page: u64) -> Option<(u32, u8)> {
    match SPACE.lock().tables()?.page_state(page) {
        PageState::Swapped(entry) => match entry.stored {
            Stored::CompressedOnDisk(slot, index) => Some((slot.0, index)),
            _ => None,
        },
        _ => None,
    }
}

/// Evicts everything, damages the first slot of the group that holds one page, goes over all pages,
/// twice, and returns which can't be had. The damage is told the page's number in its group.
fn lost_pages(damage: impl Fn(&mut [u8], usize)) -> Vec<u64> {
    let (machine, disk) = machine(8, 1024);
    bound_compressed_pool(0);
    let start = map_region(APP_REGIONS, PAGES * FRAME_BYTES).unwrap();
    for page in pages(start, PAGES) {
        machine.touch(page).unwrap();
        machine.fill(page, half_noise(page, 1));
    }
    reclaim(FrameCount(1 << 20));
    while crate::mm::reclaim::attempt::wait_for_disk() {}
    let (slot, index) = place(start + DAMAGED * FRAME_BYTES).expect("it is on the disk, in a group");
    damage(disk.state().contents.get_mut(&slot).expect("the slot was written"), usize::from(index));
    let mut lost = Vec::new();
    for round in 0..2 {
        let errors = statistics().disk.errors;
        let mut failed = Vec::new();
        for (number, page) in (0..).zip(pages(start, PAGES)) {
            match machine.touch(page) {
                Ok(()) => assert_eq!(machine.word(page), half_noise(page, 1)(0), "page {number}"),
                Err(error) => {
                    assert_eq!(error, FaultError::Disk);
                    failed.push(number);
                }
            }
        }
        assert!(statistics().disk.errors > errors, "round {round}: {:?}", statistics().disk);
        assert!(round == 0 || lost == failed, "{lost:?} and then {failed:?}");
        lost = failed;
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
    lost
}

#[test]
fn a_group_without_a_sensible_header_is_lost() {
    for byte in [0, 0xff] {
        let lost = lost_pages(|slot, _| slot[..HEADER_BYTES].fill(byte));
        assert!(lost.contains(&DAMAGED) && lost.len() == 2, "{lost:?}");
    }
}

#[test]
fn a_group_of_other_pages_is_lost() {
    // Bits 16 and up of an object's head are its page's address.
    let lost = lost_pages(|slot, index| slot[HEADER_BYTES + index * OBJECT_BYTES + 4] ^= 1);
    assert!(lost.contains(&DAMAGED) && lost.len() == 2, "{lost:?}");
}

#[test]
fn a_page_that_cannot_be_unpacked_is_lost_alone() {
    let damage = |slot: &mut [u8], index| {
        let object = HEADER_BYTES + index * OBJECT_BYTES;
        slot[object + 8..object + 1000].fill(0xff);
    };
    assert_eq!(lost_pages(damage), [DAMAGED]);
}
