//! A service whose working set has phases: it grows and shrinks in phases, is written with known
//! patterns, and every byte that is read back is verified.
//!
//! `phases=64M:3s,320M:4s,64M:3s repeat`: working set and duration of each phase; with `repeat` for
//! ever, else once. See [`working_set`].
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
