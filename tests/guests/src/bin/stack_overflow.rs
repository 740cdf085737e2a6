//! Recurses without end.

#![no_std]
#![no_main]

use aerostat_guest::app::Outcome;

aerostat_guest::app!(main);

fn main() -> Outcome {
    log::info!("deep: {}", deeper(1));
    Outcome::Success
}

fn deeper(depth: u64) -> u64 {
    let ballast = core::hint::black_box([depth; 32]);
    if depth == u64::MAX { 0 } else { deeper(depth + 1) + ballast[7] }
}
