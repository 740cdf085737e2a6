//! Machines of QEMU that lack something that Aerostat's own have: how a guest ends there, where its
//! log goes, and how it knows its disks.

use std::fs;

use aerostat::host::EndReason;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode};
use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Lack, Machine, Plan, WayOut};

aerostat_tests::on_qemu_machines! {
    a_guest_without_an_exit_port_ends_its_machine,
    a_machine_that_is_too_small_is_left,
    disks_are_known_without_serial_numbers,
    the_log_goes_to_a_virtio_console,
}

/// A guest without an exit port powers its machine off or resets it, and says how it has ended.
fn a_guest_without_an_exit_port_ends_its_machine(machine: Machine) {
    let guests = [
        ("timer", "the guest has ended: success (exit code 0x10)"),
        ("disk", "the guest has ended: failure (exit code 0x11)"),
        ("panic", "the guest has ended: panic (exit code 0x12)"),
        ("stack_overflow", "the guest has ended: stack overflow (exit code 0x14)"),
    ];
    for (name, last_words) in guests {
        let mut guest = Plan::test_guest(name).way_out(WayOut::Machine).boot(machine);
        let end = guest.wait_for_end();
        guest.check(matches!(end, EndReason::Fault(_)), &format!("{name} ended with {end:?}"));
        guest.expect_logged(last_words);
    }
}

/// A machine that can't be used is left, too.
fn a_machine_that_is_too_small_is_left(machine: Machine) {
    let mut guest = Plan::test_guest("boot").memory_mib(12).way_out(WayOut::Machine).boot(machine);
    guest.wait_for_end();
    guest.expect_logged("the guest has ended: unusable machine (exit code 0x16)");
}

fn the_log_goes_to_a_virtio_console(machine: Machine) {
    let mut guest = Plan::test_guest("panic").command_line("log=debug").without(Lack::SerialPort).boot(machine);
    guest.expect_exit(GuestExit::Panic);
    guest.expect_logged("memory: "); // written before the console was found
    guest.expect_logged("console: the log goes to the virtio Console device over ");
    guest.expect_logged("the guest has ended: panic (exit code 0x12)");
}

fn disks_are_known_without_serial_numbers(machine: Machine) {
    const MIB: u64 = 64;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("disk");
    fs::write(&path, [b"AERO".as_slice(), &[0; 4 << 20][4..]].concat()).expect("the disk can be made");
    let disk = DataDisk { path, mode: DiskMode::ReadWrite, faults: DiskFaults::default() };
    let plan = Plan::test_guest("disk").command_line("verify log=debug").disk(disk).swap_mib(MIB);
    let mut guest = plan.without(Lack::SerialNumbers).boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("known by its place in the order");
    let plan = Plan::test_guest("swap").memory_mib(MIB).command_line("overcommit log=debug").swap_mib(3 * MIB + 1);
    let mut guest = plan.without(Lack::SerialNumbers).boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("known by what it holds");
    let area = guest.swap_disk();
    assert!(area[..4096].ends_with(b"SWAPSPACE2"), "{machine:?}: the first page is not a swap area any more");
}
