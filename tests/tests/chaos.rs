//! A fleet under chaos: what must hold while processes are killed, stopped and throttled at random
//! (`aerostat_tests::chaos`).
//!
//! `cargo xtask test --long` has a run of ten minutes, and `cargo xtask soak` is one of hours.

use std::time::Duration;

use aerostat_tests::chaos::{Length, run};

const SEED: u64 = 13;
/// Some 50 seconds.
const STEPS: u64 = 400;

#[test]
fn chaos() {
    run(SEED, Length::Steps(STEPS));
}

#[test]
#[ignore = "takes ten minutes"]
fn chaos_for_ten_minutes() {
    run(SEED + 1, Length::Time(Duration::from_secs(600)));
}
