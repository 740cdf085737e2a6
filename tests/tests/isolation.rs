//! Guests and VMM processes that fail: each ends with a reason, and its neighbours go on.

use aerostat::host::EndReason;
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Guest, Machine, Plan};

#[test]
fn a_triple_fault_ends_its_guest_only() {
    let mut neighbour = masked_loop();
    let mut guest = Plan::test_guest("triple_fault").boot(Machine::Kvm);
    let reason = guest.wait_for_end();
    let named = matches!(&reason, EndReason::Fault(what) if what.contains("triple fault"));
    guest.check(named, &format!("a triple fault ended it with {reason:?}"));
    expect_stop(&mut neighbour);
}

#[test]
fn writes_to_unknown_ports_are_ignored() {
    let mut guest = Plan::test_guest("unknown_ports").boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("unknown ports: ok");
}

/// A guest that masks interrupts for ever does not harm its neighbour.
#[test]
fn a_guest_that_masks_interrupts_can_be_stopped() {
    let mut stubborn = masked_loop();
    let mut neighbour = Plan::test_guest("timer").boot(Machine::Kvm);
    neighbour.expect_exit(GuestExit::Success);
    stubborn.set_target_mib(16);
    expect_stop(&mut stubborn);
}

#[test]
fn a_killed_vmm_process_does_not_harm_a_neighbour() {
    const MIB: u64 = 320;
    const SMALL_MIB: u64 = 64;
    let [mut victim, mut neighbour] =
        ["inflate", "deflate"].map(|name| Plan::test_guest(name).memory_mib(MIB).boot(Machine::Kvm));
    victim.wait_for_line("inflate: freed");
    neighbour.wait_for_line("deflate: freed");
    victim.set_target_mib(SMALL_MIB);
    neighbour.set_target_mib(SMALL_MIB);
    victim.wait_for_facts("the first frames inflated", |facts| facts.inflated > FrameCount::ZERO);
    victim.kill();
    let reason = victim.wait_for_end();
    victim.check(reason == EndReason::Killed(9), &format!("SIGKILL ended it with {reason:?}"));
    neighbour.wait_for_line("deflate: shrunk");
    neighbour.set_target_mib(MIB);
    neighbour.expect_exit(GuestExit::Success);
    neighbour.expect_logged("deflate: ok");
}

/// Boots a guest that masks interrupts and loops for ever.
fn masked_loop() -> Guest {
    let mut guest = Plan::test_guest("masked_loop").boot(Machine::Kvm);
    guest.wait_for_line("masked loop: begins");
    guest
}

/// Asserts that `guest` still runs and ends after a request to stop.
fn expect_stop(guest: &mut Guest) {
    guest.request_stop();
    let reason = guest.wait_for_end();
    guest.check(reason == EndReason::Stopped, &format!("a request to stop ended it with {reason:?}"));
}
