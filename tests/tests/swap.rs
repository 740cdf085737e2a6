//! Swapping to disk: evicted pages return unchanged, and a disk that fails costs the pages on it
//! and nothing else.

use std::fs;

use aerostat::host::EndReason;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Guest, Machine, Plan};

const MIB: u64 = 64;
/// Sectors in a slot.
const SLOT: u64 = 8;
/// Slots that are written at once.
const CLUSTER: u64 = 64;

aerostat_tests::on_both_machines! {
    a_disk_smaller_than_a_cluster_is_not_used,
    an_unreadable_sector_does_not_harm_its_neighbours,
    an_unreadable_page_ends_the_guest,
    file_pages_are_dropped_while_the_disk_is_full,
    data_that_stops_compressing_ends_the_guest,
    evicted_events_wake_their_threads,
    faults_have_room_on_the_stack,
    faults_of_several_threads_share_the_last_reserve,
    more_than_memory_and_swap_is_refused,
    slots_of_dropped_pages_are_used_again_when_the_disk_is_full,
    slots_that_cannot_be_written_are_not_used_again,
    three_times_the_memory_is_swapped_and_restored,
}

aerostat_tests::on_machine!(qemu_q35, Q35, three_times_the_memory_is_swapped_and_restored);
aerostat_tests::on_machine!(qemu_pc_pins, PcPins, three_times_the_memory_is_swapped_and_restored);

fn plan(mode: &str) -> Plan {
    Plan::test_guest("swap").memory_mib(MIB).command_line(mode)
}

fn swap_mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// Boots the guest and asserts that it finds no error.
fn expect_ok(plan: &Plan, machine: Machine) -> Guest {
    let mut guest = plan.boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("swap: ok");
    guest
}

fn three_times_the_memory_is_swapped_and_restored(machine: Machine) {
    let _ended = expect_ok(&plan("overcommit").swap_mib(3 * MIB), machine);
}

/// Zspages on disk keep their slots until their last page is dropped: they are packed when the
/// slots are needed.
fn slots_of_dropped_pages_are_used_again_when_the_disk_is_full(machine: Machine) {
    let _ended = expect_ok(&plan("sparse").swap_mib(MIB / 2), machine);
}

/// While one thread packs a zspage with the frames of the last reserve, others that fault find no
/// frame and nothing to evict.
fn faults_of_several_threads_share_the_last_reserve(machine: Machine) {
    let _ended = expect_ok(&plan("sparse 16").swap_mib(MIB / 2), machine);
}

fn more_than_memory_and_swap_is_refused(machine: Machine) {
    let guest = expect_ok(&plan("fill").swap_mib(16), machine);
    let mib = available(&guest);
    guest.check((MIB..MIB + 16).contains(&mib), &format!("{mib} MiB of {MIB} and 16"));
}

/// Pages of a file can be dropped when nothing can be swapped any more.
fn file_pages_are_dropped_while_the_disk_is_full(machine: Machine) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("disk");
    fs::write(&path, vec![b'A'; 32 << 20]).expect("a file can be made in a fresh temporary folder");
    let disk = DataDisk { path, mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    let _ended = expect_ok(&plan("file").swap_mib(16).disk(disk), machine);
}

/// One sector is bad in each of the first, a middle and the last slot of the first cluster.
fn slots_that_cannot_be_written_are_not_used_again(machine: Machine) {
    let slots = [0, CLUSTER / 2, CLUSTER - 1];
    let write_errors = slots.map(|slot| Sectors { first: slot * SLOT + slot % SLOT, count: 1 }).to_vec();
    let faults = DiskFaults { write_errors, ..DiskFaults::default() };
    let guest = expect_ok(&plan("overcommit").swap(swap_mib(3 * MIB), faults), machine);
    let left = FrameCount::from_mib(3 * MIB).0 - 3;
    guest.expect_logged(&format!("swap: {left} slots"));
}

fn an_unreadable_sector_does_not_harm_its_neighbours(machine: Machine) {
    let _ended = expect_ok(&plan("beside").swap(swap_mib(MIB), unreadable_slot()), machine);
}

fn an_unreadable_page_ends_the_guest(machine: Machine) {
    let mut guest = plan("touch").swap(swap_mib(MIB), unreadable_slot()).boot(machine);
    guest.expect_exit(GuestExit::DiskError);
    let line = guest.wait_for_line("the bad page is at");
    let page = line.split_whitespace().last().expect("the line has words");
    guest.expect_logged(&format!("disk error: the page at {page} can't be read from its disk"));
}

/// Makes one sector unreadable, in the slot to which the guest's page 20 is written.
fn unreadable_slot() -> DiskFaults {
    DiskFaults { read_errors: vec![Sectors { first: 20 * SLOT + 3, count: 1 }], ..DiskFaults::default() }
}

fn data_that_stops_compressing_ends_the_guest(machine: Machine) {
    let mut guest = plan(&format!("rewrite compressed_swap={MIB}M")).boot(machine);
    guest.expect_exit(GuestExit::OutOfMemory);
    guest.expect_logged("swap: all is text");
    guest.expect_logged("out of memory: there is no frame for the page");
}

/// Threads wait for events whose memory is on the swap disk when they are signalled.
fn evicted_events_wake_their_threads(machine: Machine) {
    let mut guest = Plan::test_guest("evicted_events").memory_mib(MIB).swap_mib(4 * MIB).boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("evicted events: ok");
}

/// The deepest page faults are those that evict some pages and read others.
fn faults_have_room_on_the_stack(machine: Machine) {
    let mut guest = Plan::test_guest("fault_stack").memory_mib(MIB).swap_mib(4 * MIB).boot(machine);
    guest.expect_exit(GuestExit::Success);
}

/// The guest logs it and goes on without swap.
fn a_disk_smaller_than_a_cluster_is_not_used(machine: Machine) {
    let guest = expect_ok(&plan("fill").swap(FrameCount(CLUSTER - 1), DiskFaults::default()), machine);
    guest.expect_logged(
        "swap: the disk has 63 slots of 4 KiB, less than the 64 that are written at once; it is not used",
    );
    let mib = available(&guest);
    guest.check(mib < MIB, &format!("{mib} MiB of {MIB}"));
}

/// Faults that QEMU can't inject: a full disk of the host, and errors of all sectors.
mod only_kvm {
    use super::{DiskFaults, Sectors, expect_less_memory};

    #[test]
    fn a_full_disk_of_the_host_ends_growth() {
        expect_less_memory(DiskFaults { full_after_bytes: Some(24 << 20), ..DiskFaults::default() });
    }

    #[test]
    fn a_disk_that_cannot_be_written_ends_growth() {
        let write_errors = vec![Sectors { first: 0, count: u64::MAX }];
        expect_less_memory(DiskFaults { write_errors, ..DiskFaults::default() });
    }
}

/// Asserts that pages on the disk stay intact and that allocations fail after the fault. A page
/// that was committed before may find no frame then; in that case the guest ends and says so.
fn expect_less_memory(faults: DiskFaults) {
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

/// Returns how many MiB the guest could allocate, as it logs.
fn available(guest: &Guest) -> u64 {
    let log = guest.log();
    let line = log.lines().find(|line| line.contains("MiB to be had")).expect("the guest was successful");
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "MiB").expect("the line has a number of MiB");
    words[unit - 1].parse().expect("a number")
}
