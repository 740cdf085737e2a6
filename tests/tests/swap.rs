//! Swapping to disk: what was evicted comes back as it was, and a disk that fails costs what is on
//! it and nothing else.

use std::fs;

use aerostat::host::EndReason;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Guest, Machine, Plan};

const MIB: u64 = 64;
/// Sectors in a slot, and slots that are written at once.
const SLOT: u64 = 8;
const CLUSTER: u64 = 64;

aerostat_tests::on_both_machines! {
    a_disk_that_is_too_small_is_not_used,
    a_sector_beside_what_is_wanted_may_be_unreadable,
    a_sector_that_is_wanted_may_not,
    a_file_is_read_while_the_disk_is_full,
    data_that_stops_compressing_ends_the_guest,
    events_that_were_evicted,
    faults_have_room_on_the_stack,
    more_than_memory_and_swap_is_refused,
    sectors_that_cannot_be_written_are_left_alone,
    three_times_the_memory,
}

fn plan(mode: &str) -> Plan {
    Plan::test_guest("swap").memory_mib(MIB).command_line(mode)
}

fn swap_mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// Boots it and expects it to find everything right.
fn expect_ok(plan: &Plan, machine: Machine) -> Guest {
    let mut guest = plan.boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("swap: ok");
    guest
}

fn three_times_the_memory(machine: Machine) {
    let _ended = expect_ok(&plan("overcommit").swap_mib(3 * MIB), machine);
}

fn more_than_memory_and_swap_is_refused(machine: Machine) {
    let guest = expect_ok(&plan("fill").swap_mib(16), machine);
    let mib = available(&guest);
    guest.check((MIB..MIB + 16).contains(&mib), &format!("{mib} MiB of {MIB} and 16"));
}

/// What can be dropped is, though nothing can be swapped any more.
fn a_file_is_read_while_the_disk_is_full(machine: Machine) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("disk");
    fs::write(&path, vec![b'A'; 32 << 20]).expect("a file can be made in a fresh temporary folder");
    let disk = DataDisk { path, mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    let _ended = expect_ok(&plan("file").swap_mib(16).disk(disk), machine);
}

/// The first, a middle and the last page of the first cluster, each by one of its sectors.
fn sectors_that_cannot_be_written_are_left_alone(machine: Machine) {
    let slots = [0, CLUSTER / 2, CLUSTER - 1];
    let write_errors = slots.map(|slot| Sectors { first: slot * SLOT + slot % SLOT, count: 1 }).to_vec();
    let faults = DiskFaults { write_errors, ..DiskFaults::default() };
    let guest = expect_ok(&plan("overcommit").swap(swap_mib(3 * MIB), faults), machine);
    let left = FrameCount::from_mib(3 * MIB).0 - 3;
    guest.expect_logged(&format!("swap: {left} slots"));
}

fn a_sector_beside_what_is_wanted_may_be_unreadable(machine: Machine) {
    let _ended = expect_ok(&plan("beside").swap(swap_mib(MIB), unreadable_slot()), machine);
}

fn a_sector_that_is_wanted_may_not(machine: Machine) {
    let mut guest = plan("touch").swap(swap_mib(MIB), unreadable_slot()).boot(machine);
    guest.expect_exit(GuestExit::DiskError);
    let line = guest.wait_for_line("the bad page is at");
    let page = line.split_whitespace().last().expect("the line has words");
    guest.expect_logged(&format!("disk error: the page at {page} can't be read from its disk"));
}

/// One sector of the slot that the guest's page 20 is written to.
fn unreadable_slot() -> DiskFaults {
    DiskFaults { read_errors: vec![Sectors { first: 20 * SLOT + 3, count: 1 }], ..DiskFaults::default() }
}

fn data_that_stops_compressing_ends_the_guest(machine: Machine) {
    let mut guest = plan(&format!("rewrite compressed_swap={MIB}M")).boot(machine);
    guest.expect_exit(GuestExit::OutOfMemory);
    guest.expect_logged("swap: all is text");
    guest.expect_logged("out of memory: there is no frame for the page");
}

/// Threads wait for what is on disk by the time that it happens.
fn events_that_were_evicted(machine: Machine) {
    let mut guest = Plan::test_guest("evicted_events").memory_mib(MIB).swap_mib(4 * MIB).boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("evicted events: ok");
}

/// The deepest page faults are those that evict some pages and read others.
fn faults_have_room_on_the_stack(machine: Machine) {
    let mut guest = Plan::test_guest("fault_stack").memory_mib(MIB).swap_mib(4 * MIB).boot(machine);
    guest.expect_exit(GuestExit::Success);
}

/// Fewer slots than a cluster has: the guest says so and goes on with its memory.
fn a_disk_that_is_too_small_is_not_used(machine: Machine) {
    let guest = expect_ok(&plan("fill").swap(FrameCount(CLUSTER - 1), DiskFaults::default()), machine);
    guest.expect_logged(
        "swap: the disk has 63 slots of 4 KiB, less than the 64 that are written at once; it is not used",
    );
    let mib = available(&guest);
    guest.check(mib < MIB, &format!("{mib} MiB of {MIB}"));
}

/// QEMU has no host whose disk is full, and takes errors sector by sector.
mod only_kvm {
    use super::{DiskFaults, Sectors, expect_less};

    #[test]
    fn a_host_whose_disk_is_full() {
        expect_less(DiskFaults { full_after_bytes: Some(24 << 20), ..DiskFaults::default() });
    }

    #[test]
    fn a_disk_that_takes_nothing() {
        let write_errors = vec![Sectors { first: 0, count: u64::MAX }];
        expect_less(DiskFaults { write_errors, ..DiskFaults::default() });
    }
}

/// What was on the disk stays good, and allocations fail from then on; or a page that was committed
/// memory before that can't have it, and the guest says so.
fn expect_less(faults: DiskFaults) {
    let mut guest = plan("fill").swap(swap_mib(2 * MIB), faults).boot(Machine::Kvm);
    match guest.wait_for_end() {
        EndReason::Exited(GuestExit::Success) => {
            let mib = available(&guest);
            guest.check(mib < MIB + 24, &format!("{mib} MiB of {MIB} and 24"));
        }
        EndReason::Exited(GuestExit::OutOfMemory) => {
            guest.expect_logged("out of memory: there is no frame for the page");
        }
        reason => guest.check(false, &format!("it ended with {reason:?}")),
    }
}

/// What the guest says that it could have.
fn available(guest: &Guest) -> u64 {
    let log = guest.log();
    let line = log.lines().find(|line| line.contains("MiB to be had")).expect("the guest was successful");
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "MiB").expect("the line says so");
    words[unit - 1].parse().expect("a number")
}
