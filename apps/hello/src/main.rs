//! The smallest application: logs its memory and its arguments, and ends.
#![no_std]
#![no_main]

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

fn main() -> Outcome {
    let memory = app::memory();
    log::info!("hello from a guest of {}, {} of it free", memory.total, memory.free);
    if !app::arguments().is_empty() {
        log::info!("called with: {}", app::arguments());
    }
    Outcome::Success
}
