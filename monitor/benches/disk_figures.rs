//! What disks cost and achieve. Needs `/dev/kvm`: `cargo bench -p aerostat --bench disk_figures`,
//! on an otherwise idle machine.

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to report")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../tests/support/bench.rs"]
mod bench;
#[path = "../tests/support/elf.rs"]
mod elf;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "../tests/support/guests.rs"]
mod guests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use aerostat::host::GuestHandle;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode, SwapDisk};
use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;

use bench::{Bench, SUCCESS, end};

const DISK_BYTES: u64 = 128 << 20;

/// Creates a bench whose guest has a disk of this size, and that disk.
fn with_disk(code: &[u8], mode: DiskMode, bytes: u64) -> (Bench, File) {
    let mut bench = Bench::new(code);
    let path = bench.config.image.with_file_name("disk");
    let file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    file.set_len(bytes).unwrap();
    bench.config.disks.data = Some(DataDisk { path, mode, faults: DiskFaults::default() });
    (bench, file)
}

fn main() {
    metrics();
    resident_memory_of_disks();
}

/// Prints what a notification costs and a disk's throughput.
fn metrics() {
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
        let plain = between_marks(&Bench::new(guests::boots()));
        let (mut disks, _file) = with_disk(guests::boots(), DiskMode::ReadOnly, DISK_BYTES);
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

/// Prints what disks cost in memory.
fn resident_memory_of_disks() {
    for count in 0..3 {
        let (mut bench, _file) = with_disk(guests::spins(), DiskMode::ReadWrite, DISK_BYTES);
        if count < 1 {
            bench.config.disks.data = None;
        }
        if count > 1 {
            let swap = SwapDisk { size: FrameCount::from_mib(512), faults: DiskFaults::default() };
            bench.config.disks.swap = Some(swap);
        }
        let mut guest = bench.spawn();
        while guest.registers().facts().port_calls == 0 {
            assert_eq!(guest.next_event(), None);
            std::thread::yield_now();
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
        let anonymous = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        println!("{count} disks: {anonymous}, the guest's {} included", guest.registers().facts().resident);
    }
}

/// Writes the whole disk and brings it into the page cache.
fn fill(file: &File) {
    let block = vec![0x5a; 1 << 20];
    for offset in (0..DISK_BYTES).step_by(1 << 20) {
        file.write_all_at(&block, offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// Makes the same accesses as the guests, in one thread of this process, with as many buffers.
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
