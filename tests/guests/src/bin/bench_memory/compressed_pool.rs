//! Evicts pages of text to the compressed pool and restores them, through the paths of eviction and
//! faults. The text is that of the data disk, or prose if there is none.

use core::hint::black_box;

use aerostat_abi::units::FrameCount;
use aerostat_guest::app::{self, Instant, Outcome};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::{PAGE_BYTES, log};

#[path = "../../text.rs"]
mod text;

const TEXT_BYTES: usize = 64 << 20;
const PAGES: usize = TEXT_BYTES / PAGE_BYTES;
/// Frames to free by eviction, which takes about half of the pages of text.
const FREED: FrameCount = FrameCount::from_mib(8);
/// The distance, in pages, between two pages that are touched alone.
const LONE_STRIDE: usize = 67;
/// Bytes that are read from the disk at once.
const READ_BYTES: usize = 1 << 20;

pub(crate) fn measure() -> Outcome {
    let mut memory = vec![0; TEXT_BYTES];
    for (number, part) in memory.chunks_exact_mut(READ_BYTES).enumerate() {
        if let Err(error) = fill(part, number) {
            log::error!("bench memory: the text can't be read: {error}");
            return Outcome::Failure;
        }
    }
    let _ = app::reclaim(FrameCount(1)); // splits and ages pages, so that the next call only evicts
    let text = if app::disk().is_some() { "text" } else { "prose" };
    out(&format!("{text}_out"));
    into(&format!("{text}_in"), &memory);
    out(&format!("{text}_out_again"));
    lone(&memory);
    if is_intact(&memory) {
        Outcome::Success
    } else {
        log::error!("bench memory: a page of text has changed");
        Outcome::Failure
    }
}

/// Evicts pages; the figure is per evicted page.
fn out(name: &str) {
    let before = app::memory().evictions;
    let start = Instant::now();
    let freed = app::reclaim(FREED);
    let nanoseconds = Instant::now().since(start);
    log::debug!("{freed} freed of {FREED}");
    log(name, nanoseconds, count(app::memory().evictions - before));
}

/// Touches every page in order; the figure is per restored page.
fn into(name: &str, memory: &[u8]) {
    let before = app::memory().restores;
    let start = Instant::now();
    for page in 0..PAGES {
        black_box(memory[page * PAGE_BYTES]);
    }
    log(name, Instant::now().since(start), count(app::memory().restores - before));
}

/// Touches pages far apart; the figure is the median over those that had to be restored.
fn lone(memory: &[u8]) {
    let mut times = Vec::with_capacity(PAGES / LONE_STRIDE + 1);
    for page in (0..PAGES).step_by(LONE_STRIDE) {
        let before = app::memory().restores;
        let start = Instant::now();
        black_box(memory[page * PAGE_BYTES]);
        let time = Instant::now().since(start);
        if app::memory().restores > before {
            times.push(time);
        }
    }
    times.sort_unstable();
    log("restore_lone", times.get(times.len() / 2).copied().unwrap_or(0), times.len().min(1));
}

/// Fills `part` with part `number` of the text.
fn fill(part: &mut [u8], number: usize) -> Result<(), app::DiskError> {
    if let Some(disk) = app::disk() {
        return disk.read((number * READ_BYTES) as u64, part);
    }
    let first = number * READ_BYTES / PAGE_BYTES;
    for (page, bytes) in part.chunks_exact_mut(PAGE_BYTES).enumerate() {
        text::fill(bytes, first + page);
    }
    Ok(())
}

fn is_intact(memory: &[u8]) -> bool {
    let mut expected = vec![0; READ_BYTES];
    memory
        .chunks_exact(READ_BYTES)
        .enumerate()
        .all(|(number, part)| fill(&mut expected, number).is_ok() && part == expected)
}

fn count(pages: u64) -> usize {
    usize::try_from(pages).unwrap_or(usize::MAX)
}
