//! Uses memory while its host pages it; the bench `enforcement` reads what it logs.
//!
//! It fills `MIB` of the command line, and touches a page of it now and then until it has met as
//! many that were out as it needs. Then it reads all of it in order.

#![no_std]
#![no_main]

use core::hint::black_box;

use aerostat_guest::app::memory::Mapping;
use aerostat_guest::app::{self, Instant, Outcome};

aerostat_guest::app!(main);

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Pauses between touches.
const PAUSE_MS: u64 = 20;
/// What takes longer was out: a page that was not mapped yet takes some 20 us here.
const OUT_NS: u64 = 100_000;
/// Pages that were out, of which each is a figure.
const FAULTS: usize = 60;

fn main() -> Outcome {
    let Some(mib) = app::words().next().and_then(|word| word.parse::<usize>().ok()) else {
        log::error!("bench paging: the command line names no size");
        return Outcome::Failure;
    };
    let Ok(mut memory) = Mapping::anonymous(mib << 20) else {
        log::error!("bench paging: there is no memory");
        return Outcome::Failure;
    };
    for (place, word) in memory.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&contents(place).to_le_bytes());
    }
    log::info!("bench paging: ready");
    touch(&memory);
    log::info!("bench paging: walks");
    let start = Instant::now();
    let wrong = memory
        .chunks_exact(8)
        .enumerate()
        .filter(|(place, word)| u64::from_le_bytes((*word).try_into().unwrap_or_default()) != contents(*place));
    let wrong = wrong.count();
    log::info!("figure walk: {} ns for {}", Instant::now().since(start), memory.len());
    if wrong == 0 { Outcome::Success } else { Outcome::Failure }
}

/// Returns the word at a place.
fn contents(place: usize) -> u64 {
    (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Touches pages in no order until enough of them were out.
fn touch(memory: &[u8]) {
    let huge_pages = memory.len() / HUGE_PAGE_BYTES;
    let (mut at, mut faults) = (0, 0);
    while faults < FAULTS {
        app::sleep(PAUSE_MS);
        at = (at + 61) % huge_pages;
        let start = Instant::now();
        black_box(memory[at * HUGE_PAGE_BYTES + 8192]);
        let nanoseconds = Instant::now().since(start);
        if nanoseconds > OUT_NS {
            faults += 1;
            log::info!("figure fault: {nanoseconds} ns for 1");
        }
    }
}
