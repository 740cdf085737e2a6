//! Keeps a cache and drops it when memory is short. With `balloon` on its command line, the guest
//! waits until its balloon needs memory in use. Without, it uses more memory than it has.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use aerostat_guest::app::memory::{Mapping, OutOfMemory, Pressure, on_pressure};
use aerostat_guest::app::{self, Mutex, Outcome};

#[path = "../text_like.rs"]
mod text_like;

aerostat_guest::app!(main);

const PIECE: usize = 4 << 20;
const PIECES: usize = 10;

static CACHE: Mutex<Vec<Mapping>> = Mutex::new(Vec::new());
/// The numbers of calls with low and with high pressure.
static CALLS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("pressure: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("pressure: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    for seed in 0..PIECES {
        let mut piece = Mapping::anonymous(PIECE).map_err(|OutOfMemory| "no memory")?;
        text_like::fill(&mut piece, 0, seed as u64);
        CACHE.lock().push(piece);
    }
    on_pressure(Box::new(shrink)).map_err(|_| "no thread")?;
    if CALLS.iter().any(|calls| calls.load(Ordering::Relaxed) > 0) {
        return Err("the application was told of pressure while memory is free");
    }
    if app::arguments().contains("balloon") {
        log::info!("pressure: filled");
        while CALLS[1].load(Ordering::Relaxed) == 0 {
            app::sleep(1);
        }
    } else {
        let bytes = usize::try_from(app::memory().total.bytes()).unwrap_or(0);
        let mut memory = Mapping::anonymous(bytes).map_err(|OutOfMemory| "no memory")?;
        text_like::fill(&mut memory, 0, 1);
        if !text_like::is_kept(&memory, 0, 1) {
            return Err("memory has changed");
        }
    }
    let [low, high] = [0, 1].map(|level: usize| CALLS[level].load(Ordering::Relaxed));
    let after = app::memory();
    log::info!("{low} calls with low pressure, {high} with high, {} evictions", after.evictions);
    if low + high == 0 || !CACHE.lock().is_empty() {
        return Err("the cache was not told that memory is short");
    }
    app::validate()
}

/// Drops the whole cache.
fn shrink(pressure: Pressure) {
    let is_first = CALLS.iter().all(|calls| calls.load(Ordering::Relaxed) == 0);
    if is_first {
        log::info!("first told of {pressure:?} pressure after {} evictions", app::memory().evictions);
    }
    CACHE.lock().clear();
    CALLS[usize::from(pressure == Pressure::High)].fetch_add(1, Ordering::Relaxed);
}
