//! Everything at once: threads use three times the memory that there is, while the balloon never rests, and every byte is verified.
//!
//! [`SEED`] is where the random choices begin. [`soak`] runs with `cargo xtask test --long`.

use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{DEADLINE, Machine, Plan};

const SEED: u64 = 1;
/// More than the swap disk's queue has places for.
const THREADS: u64 = 24;
const MEMORY_MIB: u64 = 64;
/// Where the balloon's target is at least; the kernel needs 16.
const LEAST_MIB: u64 = 20;
const SWAP_MIB: u64 = 256;
/// Between two targets, at most.
const REST_MS: u64 = 16;

#[test]
fn torture() {
    run(20);
}

#[test]
#[ignore = "takes ten minutes"]
fn soak() {
    run(600);
}

fn run(seconds: u64) {
    let plan = Plan::test_guest("torture").memory_mib(MEMORY_MIB).swap_mib(SWAP_MIB);
    let mut guest = plan.command_line(&format!("seconds={seconds} threads={THREADS} seed={SEED}")).boot(Machine::Kvm);
    guest.wait_for_line("torture: ");
    let mut random = SEED;
    let start = Instant::now();
    while !guest.has_ended() {
        guest.check(start.elapsed() < Duration::from_secs(seconds) + DEADLINE, "it did not end in time");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        guest.set_target_mib(LEAST_MIB + (random >> 33) % (MEMORY_MIB - LEAST_MIB + 1));
        thread::sleep(Duration::from_millis((random >> 40) % REST_MS));
    }
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("torture: ok");
    guest.expect_logged(", 0 errors");
}
