//! Sleeps, and reads the clock before and after.

#![no_std]
#![no_main]

use aerostat_guest::app::{self, Instant, Outcome};

aerostat_guest::app!(main);

const NAP_MS: u64 = 20;

fn main() -> Outcome {
    for _ in 0..5 {
        let start = Instant::now();
        app::sleep(NAP_MS);
        let slept_us = Instant::now().since(start) / 1000;
        if slept_us < NAP_MS * 1000 {
            log::error!("timer: asked for {NAP_MS} ms, slept {slept_us} us");
            return Outcome::Failure;
        }
    }
    log::info!("timer: ok");
    Outcome::Success
}
