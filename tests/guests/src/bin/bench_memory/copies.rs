//! Measures copies, by the functions that all copies in a guest go through.

use aerostat_guest::app::Instant;
use alloc::vec;

use crate::log;

#[path = "../../copying.rs"]
mod copying;

pub(crate) fn measure() {
    let from = vec![1; copying::LARGE_BYTES];
    let mut to = vec![2; copying::LARGE_BYTES];
    timed("copy_pages", || copying::large(&from, &mut to));
    timed("copy_small", || copying::small(&[1; 64], &mut [0; 64]));
}

/// Runs `work`, which returns how many copies it made, and logs its time.
fn timed(name: &str, work: impl FnOnce() -> usize) {
    let start = Instant::now();
    let count = work();
    log(name, Instant::now().since(start), count);
}
