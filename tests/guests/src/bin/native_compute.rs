//! Runs the loop of `compute.rs` and logs each round's time, which the bench compares with the
//! host's time for the same loop.

#![no_std]
#![no_main]

extern crate alloc;

use core::hint::black_box;

use aerostat_guest::app::{Instant, Outcome};
use alloc::boxed::Box;

#[path = "../compute.rs"]
mod compute;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let mut table = Box::new([0; compute::WORDS]);
    for _ in 0..compute::ROUNDS {
        let start = Instant::now();
        let checksum = black_box(compute::round(black_box(&mut table)));
        log::info!("native compute: {} ns, checksum {checksum:#018x}", Instant::now().since(start));
    }
    Outcome::Success
}
