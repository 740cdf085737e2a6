//! Disks of real, tiny guests.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, Sectors, SwapDisk};
use aerostat::host::vmm_guest::{SpawnError, VmmGuest};
use aerostat::host::{EndReason, GuestHandle};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;

use crate::bench::{Bench, SUCCESS, end};
use crate::guests;

const DISK_BYTES: u64 = 128 << 20;

/// A bench whose guest has a disk of this size with `AERO` at the beginning of sector 1, and that disk.
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
fn a_guest_that_breaks_its_disk_is_told_of() {
    let (bench, _file) = with_disk(guests::breaks_its_disk(), DiskMode::ReadOnly, 4096);
    let ending = end(&mut bench.spawn());
    assert_eq!(ending.reason, EndReason::Exited(GuestExit::Panic));
    assert_eq!(ending.details, ["disk data stopped: a descriptor names what is not memory"]);
}

#[test]
fn a_disk_that_cannot_be_had_prevents_the_start() {
    let (mut bench, _file) = with_disk(guests::success(), DiskMode::ReadWrite, 4096);
    let guest = bench.spawn();
    let second = VmmGuest::spawn(&bench.config).unwrap_err();
    assert!(second.to_string().contains("is in use by another guest"), "{second}");
    drop(guest);
    bench.config.disks.data.as_mut().unwrap().path.set_file_name("nothing");
    let missing = VmmGuest::spawn(&bench.config).unwrap_err();
    assert!(matches!(missing, SpawnError::Disk(_)), "{missing}");
}

/// Prints what a notification costs and what a disk carries; run with `--ignored --nocapture`, best in a release build.
#[test]
#[ignore = "a measurement"]
fn figures() {
    let between_marks = |bench: &Bench| {
        let mut guest = bench.spawn();
        assert_eq!(end(&mut guest), SUCCESS);
        let at = |stage| guest.registers().boot_ns(stage);
        let spawned = guest.spawned_at_ns();
        let start = at(BootStage::Loaded).saturating_sub(at(BootStage::Machine));
        (Duration::from_nanos(at(BootStage::Main) - at(BootStage::Kernel)), start, at(BootStage::Loaded) - spawned)
    };
    for round in 0..3 {
        println!("round {round}");
        let (kicks, ..) = between_marks(&with_disk(guests::kicks(), DiskMode::ReadOnly, DISK_BYTES).0);
        println!("  a notification: {} ns", kicks.as_nanos() / 10_000);
        let plain = between_marks(&Bench::new(guests::asks()));
        let (mut disks, _file) = with_disk(guests::asks(), DiskMode::ReadOnly, DISK_BYTES);
        let one = between_marks(&disks);
        disks.config.disks.swap = Some(SwapDisk { size: FrameCount::from_mib(512), faults: DiskFaults::default() });
        let two = between_marks(&disks);
        println!(
            "  loading takes {} us without a disk, {} us with one, {} us with two; from spawn to loaded {}, {}, {} us",
            plain.1 / 1000,
            one.1 / 1000,
            two.1 / 1000,
            plain.2 / 1000,
            one.2 / 1000,
            two.2 / 1000
        );
        for (what, code, write, bytes) in [
            ("random reads of 4 KiB", guests::reads_randomly(), false, 4096_u64),
            ("random reads of 4 KiB, 4 at a time", guests::reads_randomly_ahead(), false, 4096),
            ("random writes of 4 KiB", guests::writes_randomly(), true, 4096),
            ("reads of 64 KiB in order, 4 at a time", guests::reads_clusters(), false, 64 << 10),
            ("writes of 64 KiB in order, 4 at a time", guests::writes_clusters(), true, 64 << 10),
            ("reads of 1 MiB in order, 2 at a time", guests::reads_on(), false, 1 << 20),
            ("writes of 1 MiB in order, 2 at a time", guests::writes_on(), true, 1 << 20),
        ] {
            let count = 10_000;
            let (bench, file) = with_disk(code, DiskMode::ReadWrite, DISK_BYTES);
            fill(&file);
            let (guest, ..) = between_marks(&bench);
            let host = on_host(&file, write, bytes, count);
            let rate = |time: Duration| (bytes * u64::from(count)) as f64 / time.as_secs_f64() / f64::from(1 << 30);
            println!(
                "  {what}: guest {:.2} us, {:.2} GiB/s; host {:.2} us, {:.2} GiB/s; ratio {:.2}",
                guest.as_secs_f64() * 1e6 / f64::from(count),
                rate(guest),
                host.as_secs_f64() * 1e6 / f64::from(count),
                rate(host),
                host.as_secs_f64() / guest.as_secs_f64()
            );
        }
    }
}

/// Gives the whole disk contents and a place in the page cache.
fn fill(file: &File) {
    let block = vec![0x5a; 1 << 20];
    for offset in (0..DISK_BYTES).step_by(1 << 20) {
        file.write_all_at(&block, offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// The same accesses as the guests', by one thread of this process, with as many buffers.
fn on_host(file: &File, write: bool, bytes: u64, count: u32) -> Duration {
    let mut buffers = vec![vec![1; usize::try_from(bytes).unwrap()]; 4];
    let mut state = 12345_u32;
    let begin = Instant::now();
    for number in 0..u64::from(count) {
        let offset = if bytes == 4096 {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            u64::from((state >> 15) & 0x1_fff8) * 512
        } else {
            number * bytes % (64 << 20)
        };
        buffers.rotate_left(1);
        let buffer = &mut buffers[0];
        if write {
            file.write_all_at(buffer, offset).unwrap();
        } else {
            file.read_exact_at(buffer, offset).unwrap();
        }
    }
    begin.elapsed()
}
