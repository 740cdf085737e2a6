//! Copies, with the functions that every copy of the guest goes through.

use aerostat_guest::app::Instant;
use alloc::vec;

use crate::log;

#[path = "../../copies.rs"]
mod copies;

pub(crate) fn measure() {
    let from = vec![1; copies::LARGE_BYTES];
    let mut to = vec![2; copies::LARGE_BYTES];
    timed("copy_pages", || copies::large(&from, &mut to));
    timed("copy_small", || copies::small(&[1; 64], &mut [0; 64]));
}

/// Runs `work`, which says how many copies it made.
fn timed(name: &str, work: impl FnOnce() -> usize) {
    let start = Instant::now();
    let count = work();
    log(name, Instant::now().since(start), count);
}
