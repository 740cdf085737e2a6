//! A guest is paged by its host, without its help. Every byte of it is verified.

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
    eprintln!("{:?}", guest.facts());
    guest.expect_exit(GuestExit::Success);
    eprintln!("{:?}", guest.facts());
    guest.expect_logged(", 0 errors");
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
    eprintln!("{:?}", guest.facts());
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged(", 0 errors");
}
