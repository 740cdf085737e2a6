//! Touches memory of its own, and then sleeps: a guest as small as an application can make it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const BYTES: usize = 4 << 20;

fn main() -> Outcome {
    let mut memory = vec![0_u8; BYTES];
    memory.fill(1);
    log::info!("small_application: has touched {} bytes", core::hint::black_box(&memory).len());
    loop {
        app::sleep(1000);
    }
}
