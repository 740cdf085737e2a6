//! A disk that returns something else than was written: each fault on a page that is lost fails,
//! and no other fault does.

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
/// The size of an object in the class of two in a frame, to which half noise compresses.
const OBJECT_BYTES: usize = (FRAME_SIZE - HEADER_BYTES) / 2;

/// A page of the zspage that is damaged. It is not the last that is read, so it is also read ahead.
const DAMAGED: u64 = 20;

/// Returns the slot of the page's zspage, and the page's index in the zspage.
fn place(page: u64) -> Option<(u32, u8)> {
    match SPACE.lock().tables()?.page_state(page) {
        PageState::Swapped(entry) => match entry.stored {
            Stored::CompressedOnDisk(slot, index) => Some((slot.0, index)),
            _ => None,
        },
        _ => None,
    }
}

/// Evicts everything, damages the first slot of a zspage, touches all pages twice, and returns the
/// pages that can't be restored. `damage` gets the index of a page in the zspage.
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
    let (slot, index) = place(start + DAMAGED * FRAME_BYTES).expect("it is on the disk, in a zspage");
    damage(disk.state().contents.get_mut(&slot).expect("the slot was written"), usize::from(index));
    let mut lost = Vec::new();
    for pass in 0..2 {
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
        assert!(statistics().disk.errors > errors, "pass {pass}: {:?}", statistics().disk);
        assert!(pass == 0 || lost == failed, "{lost:?} and then {failed:?}");
        lost = failed;
    }
    unmap_region(start);
    assert_nothing_is_kept(&machine);
    lost
}

#[test]
fn a_zspage_with_a_corrupt_header_is_lost() {
    for byte in [0, 0xff] {
        let lost = lost_pages(|slot, _| slot[..HEADER_BYTES].fill(byte));
        assert!(lost.contains(&DAMAGED) && lost.len() == 2, "{lost:?}");
    }
}

#[test]
fn a_zspage_of_other_pages_is_lost() {
    // Bits 16 and up of an object's head are its page's address.
    let lost = lost_pages(|slot, index| slot[HEADER_BYTES + index * OBJECT_BYTES + 4] ^= 1);
    assert!(lost.contains(&DAMAGED) && lost.len() == 2, "{lost:?}");
}

#[test]
fn a_page_that_cannot_be_decompressed_is_lost_alone() {
    let damage = |slot: &mut [u8], index| {
        let object = HEADER_BYTES + index * OBJECT_BYTES;
        slot[object + 8..object + 1000].fill(0xff);
    };
    assert_eq!(lost_pages(damage), [DAMAGED]);
}
