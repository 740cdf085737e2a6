//! A batch job that works on all of its memory: makes records by a rule, sorts them in place and
//! verifies the result.
//!
//! `size=256M repeat=3`: memory to fill with records, and the number of rounds, one by default.
#![no_std]
#![no_main]

extern crate alloc;

mod plan;
mod records;

use aerostat_guest::app::{self, Instant, Outcome};
use alloc::format;

use plan::Plan;
use records::Records;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let plan = match Plan::parse(app::words()) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("{error}");
            return Outcome::Failure;
        }
    };
    let mib = plan.bytes >> 20;
    let Some(mut records) = Records::with_room(plan.bytes) else {
        log::error!("there is no memory for {mib} MiB of records");
        return Outcome::Failure;
    };
    let (mut verified_bytes, mut errors) = (0, 0);
    for round in 1..=plan.rounds {
        let tell = |verified, errors, doing: &str| {
            app::report(verified, errors, &format!("{doing}, round {round} of {}", plan.rounds));
        };
        let start = Instant::now();
        tell(verified_bytes, errors, &format!("making {mib} MiB of records"));
        records.make(round);
        records.sort(|percent| tell(verified_bytes, errors, &format!("sorting {mib} MiB, {percent} %")));
        tell(verified_bytes, errors, "verifying");
        let result = records.verify(round);
        verified_bytes += result.verified_bytes;
        errors += result.errors;
        tell(verified_bytes, errors, "done");
        let milliseconds = Instant::now().since(start) / 1_000_000;
        log::info!(
            "{} records, {} wrong, checksum {:016x}, {milliseconds} ms",
            records.count(),
            result.errors,
            result.checksum
        );
    }
    if errors == 0 { Outcome::Success } else { Outcome::Failure }
}
