//! Uses more memory than its machine has, in every way at the same time. Threads make and drop
//! regions, fill pages with data that compresses or does not, discard, prefetch and protect them,
//! and verify later that they are unchanged.
//!
//! `seconds=20 threads=8 times=3 seed=1`: the time, the number of threads, the memory that they use
//! together in sizes of the machine, and the seed of the random choices. The same seed gives each
//! thread the same choices; the scheduler determines their order.
#![no_std]
#![no_main]

extern crate alloc;

mod contents;
mod plan;
mod random;
mod region;
mod worker;

use aerostat_guest::app::{self, Instant, Outcome};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use plan::Plan;
use worker::{Tally, Worker};

aerostat_guest::app!(main);

/// The time between two reports of progress, each with a recount of the kernel's accounts.
const REPORT_MS: u64 = 250;

fn main() -> Outcome {
    let plan = match Plan::parse(app::words()) {
        Ok(plan) => plan,
        Err(error) => {
            log::error!("{error}");
            return Outcome::Failure;
        }
    };
    let Plan { seconds, threads, times, seed } = plan;
    log::info!("torture: {seconds} s, {threads} threads, {times} times the memory, seed={seed}");
    match torture(&plan) {
        Ok(()) => {
            log::info!("torture: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("torture: {what}");
            Outcome::Failure
        }
    }
}

fn torture(plan: &Plan) -> Result<(), &'static str> {
    let end = Instant::now().after(plan.seconds.saturating_mul(1_000_000_000));
    let share = app::memory().total.bytes() * plan.times / plan.threads;
    let tally = Arc::new(Tally::default());
    let mut workers = Vec::new();
    for number in 0..plan.threads {
        let mut worker = Worker::new(plan.seed ^ number << 32, share, Arc::clone(&tally));
        workers.push(app::spawn("torturer", move || worker.run(end)).map_err(|_| "a thread did not start")?);
    }
    while Instant::now() < end {
        app::sleep(REPORT_MS);
        tell(&tally, "torturing");
        app::validate()?;
    }
    workers.into_iter().for_each(app::JoinHandle::join);
    tell(&tally, "done");
    let memory = app::memory();
    log::info!(
        "torture: verified {} bytes, {} errors, {} refusals; {} evictions, {} restores, {} slots written, {} read",
        tally.verified_bytes(),
        tally.errors(),
        tally.refusals(),
        memory.evictions,
        memory.restores,
        memory.swap_out,
        memory.swap_in
    );
    app::validate()?;
    if tally.errors() > 0 { Err("memory has changed") } else { Ok(()) }
}

fn tell(tally: &Tally, doing: &str) {
    app::report(tally.verified_bytes(), tally.errors(), &format!("{doing}, {} refusals", tally.refusals()));
}
