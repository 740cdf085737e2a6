//! Measures host paging: how fast a guest's memory leaves and comes back, against the file's own
//! rate, and how long one access to memory that is out takes.
//!
//! The guest reads its memory in order when it comes back. So the rate is that of a guest that goes
//! on working, and its own time is part of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use aerostat::host::disk::DiskFaults;
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::{Machine, Plan};
use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::metrics::Metrics;
use crate::row::Row;
use crate::sample::{median, seconds, to_f64};

/// Memory that the guest uses, and how much of it is paged out.
const USED_MIB: u64 = 512;
const OUT_MIB: u64 = 384;
const MACHINE_MIB: u64 = 640;
const TURNS: usize = 5;
/// How often the guest is sampled.
const POLL: Duration = Duration::from_micros(500);
/// What is transferred at once.
const CHUNK: usize = 2 << 20;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut metrics = Metrics::default();
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let (mut written, mut read) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let file = FileRates::measure()?;
        written.push(file.written);
        read.push(file.read);
        let paged = page_a_guest(&mut metrics)?;
        out.push(paged.out);
        back.push(paged.back);
    }
    let fault_us = metrics.ns("fault")? / 1e3;
    Ok(vec![
        Row::rate("host_page_out_gib_s", median(out), "GiB/s", median(written)),
        Row::rate("host_page_in_gib_s", median(back), "GiB/s", median(read)),
        Row::plain("host_fault_us", fault_us, "us"),
    ])
}

/// Rates in GiB/s.
struct Paged {
    out: f64,
    back: f64,
}

fn page_a_guest(metrics: &mut Metrics) -> Result<Paged> {
    let plan = Plan::test_guest("bench_paging").memory_mib(MACHINE_MIB).command_line(&USED_MIB.to_string());
    let mut guest = plan.host_swap(DiskFaults::default()).boot(Machine::Kvm);
    guest.wait_for_line("bench paging: ready");
    let resident = guest.facts().resident;
    let limit = resident.saturating_sub(FrameCount::from_mib(OUT_MIB));
    let start = Instant::now();
    guest.limit_resident_mib(Some(limit.bytes() >> 20));
    while guest.facts().resident > limit {
        thread::sleep(POLL);
    }
    let out = to_f64(guest.paging().all_out.bytes()) / start.elapsed().as_secs_f64();
    guest.wait_for_line("bench paging: walks");
    let before = guest.paging().all_in;
    guest.limit_resident_mib(None);
    let start = Instant::now();
    while guest.paging().out > FrameCount::ZERO {
        thread::sleep(POLL);
    }
    let back = guest.paging().all_in.saturating_sub(before).bytes();
    let back = to_f64(back) / start.elapsed().as_secs_f64();
    guest.expect_exit(GuestExit::Success);
    metrics.add_guest(&guest)?;
    let gib = to_f64(1 << 30);
    Ok(Paged { out: out / gib, back: back / gib })
}

/// What a file of the same kind takes in and returns, in GiB/s.
struct FileRates {
    written: f64,
    read: f64,
}

impl FileRates {
    fn measure() -> Result<Self> {
        let file = tempfile::tempfile_in("/var/tmp").context("making a file")?;
        file.set_len(OUT_MIB << 20)?;
        fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::DIRECT)?;
        let mut memory = vec![0_u8; 2 * CHUNK];
        let aligned = memory.as_ptr().align_offset(CHUNK);
        let chunk = &mut memory[aligned..aligned + CHUNK];
        for (place, word) in chunk.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&(place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        }
        let gib = to_f64(OUT_MIB) / 1024.0;
        let written = seconds(|| for_each_chunk(&file, |file, offset| file.write_all_at(chunk, offset)))?;
        let read = seconds(|| for_each_chunk(&file, |file, offset| file.read_exact_at(chunk, offset)))?;
        Ok(Self { written: gib / written, read: gib / read })
    }
}

fn for_each_chunk(file: &File, mut transfer: impl FnMut(&File, u64) -> std::io::Result<()>) -> Result<()> {
    for offset in (0..OUT_MIB << 20).step_by(CHUNK) {
        transfer(file, offset)?;
    }
    Ok(())
}
