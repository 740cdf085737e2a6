//! Uses its disk as the command line says: `verify` writes patterns and reads them back,
//! `read-only` tries to write, `faults` reads and writes bad sectors.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use aerostat_guest::app::{self, Disk, DiskError, Outcome};

aerostat_guest::app!(main);

const SECTOR: usize = 512;
/// Where the test injects faults: sectors 16 to 23 can be neither read nor written.
const BAD_OFFSET: u64 = 16 * SECTOR as u64;
const THREADS: u64 = 6;
const THREAD_BYTES: usize = 256 << 10;

fn main() -> Outcome {
    let Some(disk) = app::disk() else {
        log::info!("disk: there is none");
        return Outcome::Failure;
    };
    log::info!("disk: {} bytes, read-only: {}", disk.size(), disk.is_read_only());
    let result = match app::arguments().split_whitespace().next() {
        Some("verify") => verify(disk),
        Some("read-only") => read_only(disk),
        Some("faults") => faults(disk),
        _ => Err("the command line names no mode"),
    };
    match result {
        Ok(()) => {
            log::info!("disk: ok");
            Outcome::Success
        }
        Err(what) => {
            log::error!("disk: {what}");
            Outcome::Failure
        }
    }
}

/// Writes and reads patterns of several sizes at several places, from one thread and from many.
/// Leaves `AERO` at the beginning of the disk.
fn verify(disk: &'static Disk) -> Result<(), &'static str> {
    for (offset, sectors) in [(0, 1), (512, 7), (4096, 8), (512, 9), (3 * 512, 1000), (0, 2048)] {
        round_trip(disk, offset, sectors * SECTOR)?;
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|number| app::spawn("disk user", move || round_trip(disk, number * THREAD_BYTES as u64, THREAD_BYTES)))
        .collect();
    for thread in threads {
        thread.map_err(|_| "a thread did not start")?.join()?;
    }
    let end = disk.size() - SECTOR as u64;
    round_trip(disk, end, SECTOR)?;
    for (offset, bytes, expected) in [
        (end, 2 * SECTOR, DiskError::OutOfRange),
        (u64::MAX - 511, SECTOR, DiskError::OutOfRange),
        (1, SECTOR, DiskError::Unaligned),
        (0, 100, DiskError::Unaligned),
    ] {
        expect(disk.read(offset, &mut vec![0; bytes]), Err(expected), "a read of no valid range")?;
    }
    expect(disk.discard(0, THREAD_BYTES as u64), Ok(()), "a discard")?;
    let mut first = [0; SECTOR];
    first[..4].copy_from_slice(b"AERO");
    expect(disk.write(0, &first), Ok(()), "the last write")?;
    expect(disk.flush(), Ok(()), "a flush")
}

/// Writes a pattern, reads it back and compares, twice with different patterns.
fn round_trip(disk: &Disk, offset: u64, bytes: usize) -> Result<(), &'static str> {
    for seed in [1, 2] {
        let pattern: Vec<u8> = (0..bytes).map(|place| byte(offset + place as u64, seed)).collect();
        expect(disk.write(offset, &pattern), Ok(()), "a write")?;
        let mut read = vec![0; bytes];
        expect(disk.read(offset, &mut read), Ok(()), "a read")?;
        if read != pattern {
            return Err("the data read is not the data written");
        }
    }
    Ok(())
}

fn byte(place: u64, seed: u64) -> u8 {
    (place.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Asserts that writes are refused and reads still work.
fn read_only(disk: &Disk) -> Result<(), &'static str> {
    let mut sector = [0; SECTOR];
    expect(disk.read(0, &mut sector), Ok(()), "a read")?;
    expect(disk.write(0, &sector), Err(DiskError::ReadOnly), "a write")?;
    expect(disk.discard(0, SECTOR as u64), Err(DiskError::ReadOnly), "a discard")?;
    expect(disk.flush(), Ok(()), "a flush")?;
    expect(disk.read(0, &mut sector), Ok(()), "a read afterwards")?;
    if sector.starts_with(b"AERO") { Ok(()) } else { Err("the disk does not begin with AERO") }
}

/// Asserts that errors are reported, in the middle of a long transfer too, and that other sectors
/// still work.
fn faults(disk: &'static Disk) -> Result<(), &'static str> {
    let mut much = vec![0; 1 << 20];
    for _ in 0..3 {
        expect(disk.read(BAD_OFFSET, &mut much[..SECTOR]), Err(DiskError::Failed), "a read of a bad sector")?;
        expect(disk.write(BAD_OFFSET, &much[..SECTOR]), Err(DiskError::Failed), "a write of a bad sector")?;
        expect(disk.read(0, &mut much), Err(DiskError::Failed), "a read across bad sectors")?;
        expect(disk.write(0, &much), Err(DiskError::Failed), "a write across bad sectors")?;
    }
    round_trip(disk, 2 * BAD_OFFSET, much.len())
}

fn expect(
    result: Result<(), DiskError>,
    expected: Result<(), DiskError>,
    what: &'static str,
) -> Result<(), &'static str> {
    if result == expected {
        return Ok(());
    }
    log::error!("disk: {what} ended with {result:?}");
    Err(what)
}
