//! Measures the memory paths of the guest kernel from inside; the bench `memory` reads what it
//! logs.
//!
//! The command line names one part: `bench=copies`, `bench=faults`, `bench=compressed_pool` (with
//! `compressed_swap=…`), `bench=swap` (with a swap disk) or `bench=work` (with `size=…`). Each
//! figure is a line `figure NAME: N ns for M`.

#![no_std]
#![no_main]

extern crate alloc;

mod compressed_pool;
mod copies;
mod faults;
mod swap;
mod work;

use aerostat_guest::app::{self, Instant, Outcome};

aerostat_guest::app!(main);

const PAGE_BYTES: usize = 4096;

fn main() -> Outcome {
    let part = app::arguments().split_whitespace().find_map(|word| word.strip_prefix("bench="));
    match part {
        Some("copies") => copies::measure(),
        Some("faults") => faults::measure(),
        Some("compressed_pool") => return compressed_pool::measure(),
        Some("swap") => return swap::measure(),
        Some("work") => return work::measure(),
        _ => {
            log::error!(
                "bench memory: name a part, bench=copies, bench=faults, bench=compressed_pool, bench=swap or bench=work"
            );
            return Outcome::Failure;
        }
    }
    Outcome::Success
}

/// Runs `work` and logs its time as that of `count` operations.
fn measured<T>(name: &str, count: usize, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    log(name, Instant::now().since(start), count);
    result
}

fn log(name: &str, nanoseconds: u64, count: usize) {
    log::info!("figure {name}: {nanoseconds} ns for {count}");
}
