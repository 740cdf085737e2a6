//! Works on more memory than its target allows. The guest detects that it is thrashing, and that it
//! no longer is once the memory has returned.

#![no_std]
#![no_main]

use aerostat_abi::units::FRAME_SIZE;
use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{self, Outcome};

#[path = "../text_like.rs"]
mod text_like;

aerostat_guest::app!(main);

const BYTES: usize = 96 << 20;

fn main() -> Outcome {
    match run() {
        Ok(()) => {
            log::info!("thrash: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("thrash: {what}");
            Outcome::Failure
        }
    }
}

fn run() -> Result<(), &'static str> {
    let mut memory = Mapping::anonymous(BYTES).map_err(|OutOfMemory| "no memory")?;
    text_like::fill(&mut memory, 0, 1);
    log::info!("thrash: filled");
    let mut place = 1_usize;
    let mut was_thrashing = false;
    loop {
        // A linear congruential sequence, in an order that no policy can predict.
        for _ in 0..1000 {
            place = place.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
            let page = (place >> 8) % (BYTES / FRAME_SIZE);
            if !text_like::is_kept(&memory[page * FRAME_SIZE..(page + 1) * FRAME_SIZE], page, 1) {
                return Err("memory has changed");
            }
        }
        let now = app::memory();
        if now.is_thrashing && !was_thrashing {
            log::info!("thrash: noticed at {} after {} refaults", now.size, now.refaults);
        }
        was_thrashing |= now.is_thrashing;
        if was_thrashing && !now.is_thrashing && now.size == now.total {
            return Ok(());
        }
    }
}
