//! Discards pages of a mapping, at once and lazily, and prefetches pages. Discarded pages are zero
//! and free. Pages that were written again stay: the dirty bits that the CPU sets in the page
//! tables tell them apart.

#![no_std]
#![no_main]

use aerostat_abi::units::{FRAME_SIZE, FrameCount};
use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Outcome};

#[path = "../text_like.rs"]
mod text_like;

aerostat_guest::app!(main);

const BYTES: usize = 16 << 20;
const PAGES: usize = BYTES / FRAME_SIZE;
const FEW_PAGES: usize = 32;

fn main() -> Outcome {
    match discard().and_then(|()| discard_lazily()).and_then(|()| app::validate()) {
        Ok(()) => {
            log::info!("discard: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("discard: {what}");
            Outcome::Failure
        }
    }
}

fn mapping(bytes: usize) -> Result<Mapping, &'static str> {
    Mapping::anonymous(bytes).map_err(|OutOfMemory| "no memory")
}

fn discard() -> Result<(), &'static str> {
    let mut memory = mapping(BYTES + 100)?;
    memory.fill(7);
    let full = app::memory();
    // Neither end is at the border of a page or of a huge page.
    let range = 1000..BYTES - 5000;
    memory.discard(range.clone());
    let after = app::memory();
    if after.free.saturating_sub(full.free) < FrameCount::from_mib(15) {
        return Err("discarded memory is not free");
    }
    let resident = memory.statistics().resident;
    let is_right = |(place, byte): (usize, &u8)| *byte == if range.contains(&place) { 0 } else { 7 };
    if !memory.iter().enumerate().all(is_right) {
        return Err("discarded memory is not zero, or other memory has changed");
    }
    log::info!("{} of {} pages were left", resident, memory.statistics().pages);
    memory.discard(0..BYTES + 100);
    match (memory.statistics().resident, memory.prefetch(0..BYTES + 100)) {
        (0, brought) if brought == PAGES as u64 + 1 => Ok(()),
        (_, brought) => {
            log::error!("{brought} pages were prefetched of {} that there was room for", PAGES + 1);
            Err("discarded pages are still resident, or were not prefetched")
        }
    }
}

/// Discards every page of a mapping lazily, writes every fourth page of the first half again, and
/// then makes memory short.
#[allow(unsafe_code, reason = "reads what it has discarded lazily, a byte at a time")]
fn discard_lazily() -> Result<(), &'static str> {
    let mut memory = mapping(BYTES)?;
    text_like::fill(&mut memory, 0, 1);
    // SAFETY: until pages are written, they are read only through a raw pointer.
    unsafe { memory.discard_lazily(0..BYTES) };
    for page in (0..PAGES / 2).step_by(4) {
        text_like::fill(&mut memory[page * FRAME_SIZE..(page + 1) * FRAME_SIZE], page, 2);
    }
    // So few that all translations are in the TLB, with their dirty bits.
    let mut few = mapping(FEW_PAGES * FRAME_SIZE)?;
    text_like::fill(&mut few, 0, 4);
    // SAFETY: all pages are written before they are read.
    unsafe { few.discard_lazily(0..FEW_PAGES * FRAME_SIZE) };
    text_like::fill(&mut few, 0, 5);
    let before = app::memory();
    let mut others = mapping(usize::try_from(before.total.bytes()).unwrap_or(0))?;
    text_like::fill(&mut others, 0, 3);
    if !text_like::is_kept(&others, 0, 3) {
        return Err("memory that was not discarded has changed");
    }
    let after = app::memory();
    log::info!("{} pages dropped, {} evicted", after.discards - before.discards, after.evictions - before.evictions);
    if after.discards == before.discards {
        return Err("memory was short, and no discarded page was dropped");
    }
    if !text_like::is_kept(&few, 0, 5) {
        return Err("pages that were written again at once have been dropped");
    }
    let start = memory.as_ptr();
    for page in 0..PAGES {
        let second_byte = start.wrapping_add(page * FRAME_SIZE + 1);
        // SAFETY: within the mapping, and every value of a byte is valid.
        let first = unsafe { second_byte.read_volatile() };
        let old = text_like::word(page * FRAME_SIZE / 8, 1).to_le_bytes()[1];
        let is_written = page % 4 == 0 && page < PAGES / 2;
        if !is_written && first != 0 && first != old {
            return Err("a discarded page is neither unchanged nor zero");
        }
        if is_written && !text_like::is_kept(&memory[page * FRAME_SIZE..(page + 1) * FRAME_SIZE], page, 2) {
            return Err("a page that was written again has been dropped");
        }
    }
    Ok(())
}
