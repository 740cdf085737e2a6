//! A guest is paged by its host, without its help. Every byte of it is verified.

use std::thread;
use std::time::Duration;

use aerostat::host::EndReason;
use aerostat::host::disk::DiskFaults;
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Guest, Machine, Plan};

const MIB: fn(u64) -> FrameCount = FrameCount::from_mib;
/// What a limit may be exceeded by: what came back last, and memory of the process itself.
const SLACK: FrameCount = FrameCount::from_mib(40);

fn walk(phases: &str) -> Plan {
    Plan::app("memwalk").memory_mib(512).command_line(&format!("phases={phases}")).host_swap(DiskFaults::default())
}

/// Waits until so much of the guest is out, and its resident memory is at the limit.
#[track_caller]
fn wait_until_limited(guest: &mut Guest, limit_mib: u64) {
    guest.wait_for_facts("resident memory at its limit", |facts| {
        facts.paging.is_some_and(|paging| paging.out > MIB(32))
            && facts.resident <= MIB(limit_mib).saturating_add(SLACK)
    });
}

#[test]
fn a_guest_that_keeps_idle_memory_is_held_at_a_limit() {
    let mut guest = walk("256M:1s,256M/16M:6s,256M:1s").boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(200));
    guest.limit_resident_mib(Some(96));
    wait_until_limited(&mut guest, 96);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged(", 0 errors");
}

#[test]
fn limits_may_change_at_any_moment() {
    let mut guest = walk("192M:5s,16M:1s").boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(150));
    for round in 0..40 {
        let limit = [Some(64), None, Some(128), Some(0), None, Some(32)][round % 6];
        guest.limit_resident_mib(limit);
        thread::sleep(Duration::from_millis(10 * (round as u64 % 7)));
    }
    guest.limit_resident_mib(None);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged(", 0 errors");
    guest.check(guest.paging().all_out > MIB(64), "it was hardly paged");
}

/// The guest moves memory to its own disk and back while its host pages it, and its target changes.
#[test]
fn a_guest_swaps_while_it_is_paged() {
    let plan = Plan::test_guest("torture").memory_mib(96).swap_mib(256).host_swap(DiskFaults::default());
    let mut guest = plan.command_line("seconds=12 threads=12 seed=1").boot(Machine::Kvm);
    guest.wait_for_line("torture: ");
    let mut round = 0;
    while !guest.has_ended() {
        guest.limit_resident_mib([Some(48), Some(32), None, Some(64)][round % 4]);
        guest.set_target_mib([96, 40, 64, 32, 80][round % 5]);
        thread::sleep(Duration::from_millis(150));
        round += 1;
    }
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("torture: ok");
    guest.expect_logged(", 0 errors");
    guest.check(guest.paging().all_in > MIB(16), "nothing came back");
}

/// A file that can't be written costs the guest nothing.
#[test]
fn a_full_host_disk_costs_no_contents() {
    let faults = DiskFaults { full_after_bytes: Some(40 << 20), ..DiskFaults::default() };
    let plan = Plan::app("memwalk").memory_mib(512).command_line("phases=192M:3s").host_swap(faults);
    let mut guest = plan.boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(150));
    guest.limit_resident_mib(Some(64));
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged(", 0 errors");
    guest.check(guest.paging().all_out >= MIB(32), "nothing was written");
}

/// A process that is killed while its guest waits for memory that is out is gone at once.
#[test]
fn a_process_is_killed_while_its_guest_is_out() {
    let mut guest = walk("256M:20s").boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(200));
    guest.limit_resident_mib(Some(32));
    guest.wait_for_facts("pages that come back", |facts| facts.paging.is_some_and(|paging| paging.all_in > MIB(16)));
    guest.kill();
    assert_eq!(guest.wait_for_end(), EndReason::Killed(9));
}

/// The process ends in order, too.
#[test]
fn a_guest_that_is_out_is_stopped() {
    let mut guest = walk("256M:20s").boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(200));
    guest.limit_resident_mib(Some(32));
    guest.wait_for_facts("pages that come back", |facts| facts.paging.is_some_and(|paging| paging.all_in > MIB(16)));
    guest.request_stop();
    assert_eq!(guest.wait_for_end(), EndReason::Stopped);
}

#[test]
fn what_is_out_comes_back_when_the_limit_is_lifted() {
    let mut guest = walk("256M:1s,256M/16M:8s,256M:1s").boot(Machine::Kvm);
    guest.wait_for_facts("a large guest", |facts| facts.resident > MIB(200));
    guest.limit_resident_mib(Some(96));
    wait_until_limited(&mut guest, 96);
    guest.limit_resident_mib(None);
    guest.wait_for_facts("all of it back", |facts| {
        facts.paging.is_some_and(|paging| paging.out == FrameCount::ZERO && paging.all_in > MIB(32))
    });
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged(", 0 errors");
}
