//! Touches fresh memory in large and small regions, in order and not. It is zero at first, keeps
//! what is written, and is free again at the end.

#![no_std]
#![no_main]

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

extern crate alloc;

fn main() -> Outcome {
    let before = app::memory();
    for bytes in [24 << 20, (2 << 20) + 4096, 600 << 10, 5000] {
        if let Err(what) = check_region(bytes) {
            log::error!("page fault: {what} in a region of {bytes} bytes");
            return Outcome::Failure;
        }
    }
    let after = app::memory();
    log::info!("{} faults with huge pages, {} with small ones", after.huge_faults, after.small_faults);
    // One step of the small-object heap stays allocated, and the page tables for it.
    let lost = before.free.saturating_sub(after.free);
    if after.huge_faults == 0 || after.small_faults == 0 || lost > FrameCount::from_mib(3) {
        log::error!("page fault: {lost} of memory is not free again");
        return Outcome::Failure;
    }
    log::info!("page fault: ok");
    Outcome::Success
}

fn check_region(bytes: usize) -> Result<(), &'static str> {
    let mut region: Vec<u64> = Vec::new();
    region.try_reserve_exact(bytes / 8).map_err(|_| "no memory")?;
    region.resize(bytes / 8, 0);
    if region.iter().any(|&word| word != 0) {
        return Err("fresh memory is not zero");
    }
    // Backwards, by a stride that is no multiple of a page, so that faults are not in order.
    for index in (0..region.len()).rev().step_by(701) {
        region[index] = index as u64;
    }
    let is_kept = (0..region.len()).rev().step_by(701).all(|index| region[index] == index as u64);
    if is_kept { Ok(()) } else { Err("written memory changed") }
}
