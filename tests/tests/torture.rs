//! All mechanisms at the same time: threads use three times the memory of the guest while the
//! target changes without a pause, and every byte is verified.
//!
//! Random choices begin with [`SEED`]. [`soak`] runs with `cargo xtask test --long`.

use std::thread;
use std::time::{Duration, Instant};

use aerostat_abi::exit::GuestExit;
use aerostat_tests::{DEADLINE, Machine, Plan};

const SEED: u64 = 1;
/// More threads than the swap disk's queue has places.
const THREADS: u64 = 24;
const MEMORY_MIB: u64 = 64;
/// The lowest target. The kernel needs 16 MiB.
const LEAST_MIB: u64 = 20;
const SWAP_MIB: u64 = 256;
/// The longest time between two targets.
const REST_MS: u64 = 16;

#[test]
fn torture() {
    run(20);
}

/// Pairs of a guest's size and its machine's, in MiB: a machine of the same size, one somewhat
/// larger and one far larger.
const RATIOS: [(u64, u64); 9] =
    [(24, 24), (24, 152), (24, 1024), (32, 152), (32, 512), (48, 152), (64, 128), (64, 512), (96, 4096)];
const RATIO_SWAP_MIB: u64 = 1024;

/// Committed memory is found at every ratio of a guest's size to its machine's.
#[test]
fn ratios_of_size_to_machine() {
    for (size, machine) in RATIOS {
        println!("{size} MiB of {machine}");
        let plan = Plan::test_guest("torture").memory_mib(machine).grant_mib(size).swap_mib(RATIO_SWAP_MIB);
        let mut guest = plan.command_line(&format!("seconds=3 seed={SEED}")).boot(Machine::Kvm);
        guest.expect_exit(GuestExit::Success);
        guest.expect_logged("torture: ok");
        guest.expect_logged(", 0 errors");
    }
}

/// The guest has enough memory for its work on each machine.
#[test]
fn a_guest_with_enough_memory_evicts_nothing_on_a_large_machine() {
    const SIZE_MIB: u64 = 128;
    for ratio in [1, 8, 64] {
        println!("{ratio} times the size");
        let plan = Plan::test_guest("bench_memory").memory_mib(ratio * SIZE_MIB).grant_mib(SIZE_MIB);
        let plan = plan.swap_mib(RATIO_SWAP_MIB).command_line(&format!("bench=work size={SIZE_MIB}"));
        let mut guest = plan.boot(Machine::Kvm);
        guest.expect_exit(GuestExit::Success);
        guest.expect_logged("work: 0 evictions");
    }
}

/// The guest makes regions until the commit limit refuses one, and ends in order.
#[test]
fn many_regions() {
    let mut guest = Plan::test_guest("many_regions").command_line("compressed_swap=26G").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("many regions: ok");
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
