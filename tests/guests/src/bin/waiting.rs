//! Allocates more memory than the host has granted, and fills it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

const BYTES: usize = 32 << 20;

fn main() -> Outcome {
    log::info!("waiting: asks");
    let mut memory: Vec<u8> = Vec::new();
    if memory.try_reserve_exact(BYTES).is_err() {
        log::error!("waiting: refused");
        return Outcome::Failure;
    }
    memory.resize(BYTES, 7);
    if memory.iter().any(|&byte| byte != 7) || app::validate().is_err() {
        log::error!("waiting: a byte has changed");
        return Outcome::Failure;
    }
    log::info!("waiting: ok");
    Outcome::Success
}
