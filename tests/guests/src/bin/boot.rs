//! Logs the size of its machine.

#![no_std]
#![no_main]

use aerostat_guest::app::{self, Outcome};

aerostat_guest::app!(main);

fn main() -> Outcome {
    log::info!("machine: {} MiB", app::memory().total.mib());
    Outcome::Success
}
