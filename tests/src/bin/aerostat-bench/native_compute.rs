//! Runs the same loop in a guest and on the host, in turn: the cost of virtualization for an
//! application that computes.
//!
//! The guest `native_compute` logs one line `native compute: N ns, checksum X` per round. The limit
//! is the host's own time.

use std::hint::black_box;
use std::time::Instant;

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Machine, Plan};
use anyhow::{Context, Result, ensure};

use crate::row::Row;
use crate::sample::median;

#[path = "../../../guests/src/compute.rs"]
mod compute;

/// Turns of guest and host.
const TURNS: usize = 5;

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut host = Vec::new();
    let mut guest = Vec::new();
    for _ in 0..TURNS {
        let (times, checksum) = on_the_host();
        host.extend(times);
        guest.extend(in_a_guest(checksum)?);
    }
    Ok(vec![Row::cost("native_compute_ms", median(guest), "ms", median(host))])
}

/// Returns the milliseconds of each round, and the checksum of every round.
fn on_the_host() -> (Vec<f64>, u64) {
    let mut table = [0; compute::WORDS];
    let mut checksum = 0;
    let mut times = Vec::new();
    for _ in 0..compute::ROUNDS {
        let start = Instant::now();
        checksum = black_box(compute::round(black_box(&mut table)));
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    (times, checksum)
}

/// Returns the milliseconds of each round, from the guest's log.
fn in_a_guest(checksum: u64) -> Result<Vec<f64>> {
    let mut guest = Plan::test_guest("native_compute").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    let log = guest.log();
    let rounds = log.lines().filter_map(|line| line.split_once("native compute: "));
    let times: Vec<f64> = rounds.map(|(_, round)| milliseconds(round, checksum)).collect::<Result<_>>()?;
    ensure!(times.len() == compute::ROUNDS, "the guest logged {} rounds, not {}", times.len(), compute::ROUNDS);
    Ok(times)
}

/// Returns the time in `N ns, checksum X`, where X must be the host's checksum.
fn milliseconds(round: &str, checksum: u64) -> Result<f64> {
    let (time, found) = round.split_once(" ns, checksum ").with_context(|| format!("no round: {round:?}"))?;
    ensure!(found.trim_end() == format!("{checksum:#018x}"), "the guest computed {found:?}, the host {checksum:#018x}");
    Ok(time.parse::<f64>().with_context(|| format!("no time: {time:?}"))? / 1e6)
}
