//! Tests disks of real, tiny guests.

use std::fs::File;
use std::os::unix::fs::FileExt;

use aerostat::host::EndReason;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors};
use aerostat::host::vmm_guest::{SpawnError, VmmGuest};
use aerostat_abi::exit::GuestExit;

use crate::bench::{Bench, SUCCESS, end};
use crate::guests;

/// Creates a bench whose guest has a disk of this size with `AERO` at the beginning of sector 1,
/// and that disk.
fn with_disk(code: &[u8], mode: DiskMode, bytes: u64) -> (Bench, File) {
    let mut bench = Bench::new(code);
    let path = bench.config.image.with_file_name("disk");
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(bytes).unwrap();
    file.write_all_at(b"AERO", 512).unwrap();
    bench.config.disks.data = Some(DataDisk { path, mode, faults: DiskFaults::default() });
    (bench, file)
}

#[test]
fn a_guest_uses_its_disk() {
    let (bench, file) = with_disk(guests::uses_disk(), DiskMode::ReadWrite, 4096);
    assert_eq!(end(&mut bench.spawn()), SUCCESS);
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 1024).unwrap();
    assert!(sector.starts_with(b"AERO"));
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (bench, file) = with_disk(guests::uses_disk(), DiskMode::ReadOnly, 4096);
    assert_eq!(end(&mut bench.spawn()).reason, EndReason::Exited(GuestExit::Panic));
    let mut sector = [1; 512];
    file.read_exact_at(&mut sector, 1024).unwrap();
    assert_eq!(sector, [0; 512]);
}

#[test]
fn faults_are_injected_where_they_are_asked_for() {
    let (mut bench, _file) = with_disk(guests::expects_a_read_error(), DiskMode::ReadOnly, 4096);
    assert_eq!(end(&mut bench.spawn()).reason, EndReason::Exited(GuestExit::Panic));
    let faults = DiskFaults { read_errors: vec![Sectors { first: 1, count: 1 }], ..DiskFaults::default() };
    bench.config.disks.data.as_mut().unwrap().faults = faults;
    assert_eq!(end(&mut bench.spawn()), SUCCESS);
}

#[test]
fn a_guest_that_breaks_its_disk_is_reported() {
    let (bench, _file) = with_disk(guests::breaks_its_disk(), DiskMode::ReadOnly, 4096);
    let ending = end(&mut bench.spawn());
    assert_eq!(ending.reason, EndReason::Exited(GuestExit::Panic));
    assert_eq!(ending.details, ["disk data stopped: a descriptor names what is not memory"]);
}

#[test]
fn an_unusable_disk_prevents_the_start() {
    let (mut bench, _file) = with_disk(guests::success(), DiskMode::ReadWrite, 4096);
    let guest = bench.spawn();
    let second = VmmGuest::spawn(&bench.config).unwrap_err();
    assert!(second.to_string().contains("is in use by another guest"), "{second}");
    drop(guest);
    bench.config.disks.data.as_mut().unwrap().path.set_file_name("nothing");
    let missing = VmmGuest::spawn(&bench.config).unwrap_err();
    assert!(matches!(missing, SpawnError::Disk(_)), "{missing}");
}
