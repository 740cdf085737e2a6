//! Holds memory that another guest wants, or wants what another guest holds, as the command line
//! says: `free MIB` touches memory and frees it, `cache MIB` reads a disk into the page cache, and
//! `want MIB` allocates memory after a rest and touches it, by the clock.

#![no_std]
#![no_main]

extern crate alloc;

use core::hint::black_box;

use aerostat_guest::app::memory::Mapping;
use aerostat_guest::app::{self, Instant, Outcome};
use alloc::vec::Vec;

aerostat_guest::app!(main);

const PAGE_BYTES: usize = 4096;
/// The rest before memory is wanted: all guests are idle then, and their supervisor polls seldom.
const REST_MS: u64 = 1500;
/// How long the memory is kept, for the host to see it.
const KEPT_MS: u64 = 500;

fn main() -> Outcome {
    let words: Vec<&str> = app::words().collect();
    let (mode, bytes) = match words[..] {
        [mode, mib] => (mode, mib.parse::<usize>().unwrap_or(0) << 20),
        _ => ("", 0),
    };
    let done = match mode {
        "free" => hold(bytes),
        "cache" => cache(bytes),
        "want" => return want(bytes),
        _ => Err("the command line names no mode"),
    };
    if let Err(what) = done {
        log::error!("bench grants: {what}");
        return Outcome::Failure;
    }
    log::info!("bench grants: ready");
    loop {
        app::sleep(1000);
    }
}

fn hold(bytes: usize) -> Result<(), &'static str> {
    let mut memory = Mapping::anonymous(bytes).map_err(|_| "no memory to hold")?;
    touch(&mut memory);
    Ok(())
}

fn cache(bytes: usize) -> Result<(), &'static str> {
    let file = app::map_disk().map_err(|_| "no disk to read")?;
    file[..bytes].iter().step_by(PAGE_BYTES).for_each(|byte| {
        black_box(*byte);
    });
    Ok(())
}

fn want(bytes: usize) -> Outcome {
    app::sleep(REST_MS);
    let asked = Instant::now();
    let Ok(mut memory) = Mapping::anonymous(bytes) else {
        log::error!("bench grants: was not granted the memory");
        return Outcome::Failure;
    };
    let granted = Instant::now();
    touch(&mut memory);
    let touched = Instant::now();
    log::info!("figure granted: {} ns for 1", granted.since(asked));
    log::info!("figure touched: {} ns for 1", touched.since(granted));
    app::sleep(KEPT_MS);
    Outcome::Success
}

fn touch(memory: &mut [u8]) {
    memory.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = black_box(1));
}
