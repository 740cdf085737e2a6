//! Behaviours of the guest kernel alone, under Aerostat's own VMM and under QEMU. Each has a tiny
//! guest and a test of the same name.

use std::fs;

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors};
use aerostat_abi::exit::GuestExit;
use aerostat_tests::{Guest, Machine, Plan};
use tempfile::TempDir;

aerostat_tests::on_both_machines! {
    boot,
    discard,
    disk,
    disk_faults,
    disk_read_only,
    exception,
    fragmentation,
    heap_exhaustion,
    masked_fault,
    null_access,
    overcommit,
    page_fault,
    panic,
    preemption,
    pressure,
    protect,
    run_data,
    stack_overflow,
    timer,
    wild_access,
    write_code,
    write_constant,
}

aerostat_tests::on_machine!(qemu_q35, Q35, boot, disk, disk_faults, discard);
aerostat_tests::on_machine!(qemu_pc, Pc, boot, disk, disk_faults, discard);
aerostat_tests::on_machine!(qemu_pc_pins, PcPins, disk, disk_faults);
aerostat_tests::on_machine!(qemu_microvm_acpi, MicrovmAcpi, boot, disk, disk_faults, discard);
aerostat_tests::on_machine!(qemu_microvm_pci, MicrovmPci, boot, disk, disk_faults, discard);

fn boot(machine: Machine) {
    const MIB: u64 = 96;
    let mut guest = Plan::test_guest("boot").memory_mib(MIB).boot(machine);
    let line = guest.wait_for_line("machine: ");
    let size = line.split("machine: ").nth(1).and_then(|rest| rest.strip_suffix(" MiB"));
    let size = size.and_then(|size| size.parse::<u64>().ok());
    // A PC's firmware area takes its part of the first mebibyte.
    guest.check(
        size.is_some_and(|size| (MIB - 1..=MIB).contains(&size)),
        &format!("a machine of {MIB} MiB says {line:?}"),
    );
    guest.expect_exit(GuestExit::Success);
}

fn discard(machine: Machine) {
    let mut guest = Plan::test_guest("discard").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("discard: ok");
}

fn disk(machine: Machine) {
    let disk = TestDisk::new(DiskMode::ReadWrite);
    expect_disk_ok("verify", machine, &disk);
    // The first sector is as the guest has written it last, and the size is as the test has set it.
    let contents = fs::read(&disk.data.path).expect("the disk is there");
    assert!(contents.starts_with(b"AERO"), "{:?}", &contents[..16]);
    assert_eq!(contents.len(), TestDisk::BYTES);
}

/// An error of the host's disk, in the middle of a request too, fails the request, and the guest
/// goes on.
fn disk_faults(machine: Machine) {
    let mut disk = TestDisk::new(DiskMode::ReadWrite);
    let sectors = vec![Sectors { first: 16, count: 8 }];
    disk.data.faults = DiskFaults { read_errors: sectors.clone(), write_errors: sectors, ..DiskFaults::default() };
    expect_disk_ok("faults", machine, &disk);
}

fn disk_read_only(machine: Machine) {
    let disk = TestDisk::new(DiskMode::ReadOnly);
    let before = fs::read(&disk.data.path).expect("the disk is there");
    expect_disk_ok("read-only", machine, &disk);
    assert!(before == fs::read(&disk.data.path).expect("the disk is there"), "a read-only disk was written");
}

/// A build with debug assertions panics on a fault whose resolution could hang.
fn masked_fault(machine: Machine) {
    let guest = ended("masked_fault", machine, GuestExit::Panic);
    guest.expect_logged("exception: page fault");
    guest.expect_logged("a bug of the kernel: upcalls are masked");
    guest.expect_logged("backtrace:");
}

fn exception(machine: Machine) {
    let guest = ended("exception", machine, GuestExit::Exception);
    guest.expect_logged("invalid opcode");
    guest.expect_logged("backtrace:");
}

fn heap_exhaustion(machine: Machine) {
    ended("heap_exhaustion", machine, GuestExit::Success).expect_logged("heap exhaustion: ok");
}

fn null_access(machine: Machine) {
    ended("null_access", machine, GuestExit::Exception).expect_logged("page fault at 0x18");
}

/// Fragmented memory becomes huge pages again.
fn fragmentation(machine: Machine) {
    let mut guest = Plan::test_guest("fragmentation").boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("fragmentation: ok");
}

fn overcommit(machine: Machine) {
    for policy in ["generations", "clock"] {
        let plan = Plan::test_guest("overcommit").command_line(&format!("reclaim={policy} compressed_swap=128M"));
        let mut guest = plan.boot(machine);
        guest.expect_exit(GuestExit::Success);
        guest.expect_logged("overcommit: ok");
    }
}

fn page_fault(machine: Machine) {
    ended("page_fault", machine, GuestExit::Success).expect_logged("page fault: ok");
}

fn panic(machine: Machine) {
    let guest = ended("panic", machine, GuestExit::Panic);
    guest.expect_logged("panicked");
    guest.expect_logged("backtrace:");
}

fn preemption(machine: Machine) {
    ended("preemption", machine, GuestExit::Success).expect_logged("preemption: ok");
}

fn pressure(machine: Machine) {
    let mut guest = Plan::test_guest("pressure").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("pressure: ok");
}

fn protect(machine: Machine) {
    let mut guest = Plan::test_guest("protect").command_line("compressed_swap=128M").boot(machine);
    guest.expect_exit(GuestExit::Exception);
    guest.expect_logged("now to what must not be");
    guest.expect_logged("page fault at 0x41");
    guest.expect_logged("a write to the read-only region 0x41");
}

/// Data, stacks and heaps can't be executed.
fn run_data(machine: Machine) {
    for place in ["data", "stack", "heap"] {
        let mut guest = Plan::test_guest("run_data").command_line(place).boot(machine);
        guest.expect_exit(GuestExit::Exception);
        let address = guest.wait_for_line("run data: at ").split("at ").last().map(str::to_owned);
        guest.expect_logged(&format!("exception: page fault at {}", address.unwrap_or_default()));
    }
}

fn stack_overflow(machine: Machine) {
    let _ended = ended("stack_overflow", machine, GuestExit::StackOverflow);
}

fn timer(machine: Machine) {
    ended("timer", machine, GuestExit::Success).expect_logged("timer: ok");
}

fn wild_access(machine: Machine) {
    let guest = ended("wild_access", machine, GuestExit::Exception);
    guest.expect_logged("page fault");
    guest.expect_logged("0xdead0000");
    guest.expect_logged("no region is there");
}

/// Code can't be written to.
fn write_code(machine: Machine) {
    expect_fault_in_image("write_code", "write code: at ", machine);
}

/// Constants can't be written to.
fn write_constant(machine: Machine) {
    expect_fault_in_image("write_constant", "write constant: at ", machine);
}

fn expect_fault_in_image(name: &str, announcement: &str, machine: Machine) {
    let mut guest = ended(name, machine, GuestExit::Exception);
    let address = guest.wait_for_line(announcement).split("at ").last().map(str::to_owned).unwrap_or_default();
    guest.expect_logged(&format!("exception: page fault at {address}"));
    guest.expect_logged("no region is there");
}

/// A disk image whose first sector begins with `AERO`, in a folder of its own.
struct TestDisk {
    data: DataDisk,
    _folder: TempDir,
}

impl TestDisk {
    const BYTES: usize = 4 << 20;

    fn new(mode: DiskMode) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("disk");
        let mut contents = vec![0; Self::BYTES];
        contents[..4].copy_from_slice(b"AERO");
        fs::write(&path, contents).expect("a file can be made in a fresh temporary folder");
        Self { data: DataDisk { path, mode, faults: DiskFaults::default() }, _folder: folder }
    }
}

/// Boots the guest `disk` with this command line and asserts that it finds no error.
fn expect_disk_ok(command_line: &str, machine: Machine, disk: &TestDisk) {
    let mut guest = Plan::test_guest("disk").command_line(command_line).disk(disk.data.clone()).boot(machine);
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("disk: ok");
}

/// Boots the test guest `name` and waits until it has exited with `exit`.
fn ended(name: &str, machine: Machine, exit: GuestExit) -> Guest {
    let mut guest = Plan::test_guest(name).boot(machine);
    guest.expect_exit(exit);
    guest
}
