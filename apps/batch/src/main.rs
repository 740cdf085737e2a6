//! A batch job that begins at a set time and needs its memory then. It either requests the memory
//! before, or waits for it when it begins.
//!
//! `size=96M start=6s ask=2s run=3s [rest]`: the job's memory, when it begins, how long before that
//! the memory is requested, and how long the job runs. Without `ask` the job requests nothing. With
//! `rest` it leaves its memory alone until it ends. It reports how long after its start the memory
//! was there.
#![no_std]
#![no_main]

mod job;
mod plan;

use aerostat_guest::app::requests::{self, Declaration, Workload};
use aerostat_guest::app::{self, Instant, Outcome};
use core::time::Duration;

use crate::plan::Plan;

aerostat_guest::app!(main);

fn main() -> Outcome {
    let plan = match Plan::parse(app::words()) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("{error}");
            return Outcome::Failure;
        }
    };
    app::report(0, 0, "waiting for its time");
    let start = Instant::now().after(nanoseconds(plan.start));
    let request = plan.ask.and_then(|ask| request(&plan, start, ask));
    sleep_until(start);
    let job = job::run(&plan, start);
    drop(request);
    match job {
        Ok(0) => Outcome::Success,
        Ok(errors) => {
            log::error!("batch: {errors} words were wrong");
            Outcome::Failure
        }
        Err(error) => {
            log::error!("batch: {error}");
            Outcome::Failure
        }
    }
}

/// Requests the job's memory `ask` before its start, and waits until it is there or the job begins.
fn request(plan: &Plan, start: Instant, ask: Duration) -> Option<Declaration> {
    let lead = nanoseconds(ask).min(nanoseconds(plan.start));
    sleep_until(Instant::from_nanos(start.as_nanos().saturating_sub(lead)));
    let within = Duration::from_nanos(start.since(Instant::now()));
    let request = requests::request(Workload::new(plan.bytes, within))?;
    app::report(0, 0, "has asked for memory");
    log::info!("batch: {:?} {} ms before the start", request.wait(), start.since(Instant::now()) / 1_000_000);
    Some(request)
}

fn sleep_until(moment: Instant) {
    loop {
        let left = moment.since(Instant::now()).div_ceil(1_000_000);
        if left == 0 {
            return;
        }
        app::sleep(left);
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
