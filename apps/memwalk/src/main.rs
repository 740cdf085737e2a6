//! A service whose working set grows and shrinks in phases. It is written with known patterns, and
//! every byte is verified when it is read back.
//!
//! `phases=64M:3s,320M/32M:4s repeat`: size and duration of each phase. Of the second one, 32 MiB
//! are used and the rest lies idle. With `repeat` the phases begin again after the last one. See
//! [`working_set`].
#![no_std]
#![no_main]

use aerostat_guest::app::{self, Outcome};
use working_set::Plan;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let plan = match Plan::parse(app::words()) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("{error}");
            return Outcome::Failure;
        }
    };
    let set = working_set::run(&plan, |_| ());
    log::info!("verified {} bytes, {} errors", set.verified_bytes(), set.errors());
    if set.errors() == 0 { Outcome::Success } else { Outcome::Failure }
}
