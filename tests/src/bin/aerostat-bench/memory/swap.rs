//! Measures the swap disk through the guest's own paths, and in turn a plain file of the host with
//! the same block size. The file is accessed with direct I/O, like the guest's, where the file
//! system has that.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use aerostat_tests::Plan;
use anyhow::{Context, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{PAGE_GIB, run};
use crate::metrics::Metrics;
use crate::row::Row;

/// Turns of guest and host.
const TURNS: usize = 5;
const MEMORY_MIB: u64 = 512;
const SWAP_MIB: u64 = 512;
/// Bytes that the guest's kernel writes at once, and reads at once when pages are touched in order.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of the file, as many as the guest writes without a pause.
const FILE_BYTES: usize = 128 << 20;
const PAGE_BYTES: usize = 4096;

pub(super) fn measure() -> Result<Vec<Row>> {
    let mut metrics = Metrics::default();
    for _ in 0..TURNS {
        measure_file(&mut metrics)?;
        let plan = Plan::test_guest("bench_memory").memory_mib(MEMORY_MIB).swap_mib(SWAP_MIB);
        metrics.add_guest(&run(&plan, "bench=swap"))?;
    }
    let gib_s = |name: &str| metrics.ns(name).map(|ns| PAGE_GIB / (ns / 1e9));
    Ok(vec![
        Row::rate("disk_swap_out", gib_s("swap_out")?, "GiB/s", gib_s("host_write")?).goal_of_limit(0.7),
        Row::rate("disk_swap_in", gib_s("swap_in")?, "GiB/s", gib_s("host_read")?).goal_of_limit(0.7),
    ])
}

/// Writes a new file, block by block, and reads it, both twice. The first write allocates space on
/// the host, as with a new swap disk. Each block has memory of its own, as pages have.
fn measure_file(metrics: &mut Metrics) -> Result<()> {
    let file = tempfile::tempfile_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()))
        .context("making a file to compare with")?;
    // As for the file behind the swap disk. An error leaves the page cache in use.
    let _ = fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::DIRECT);
    let mut memory = vec![0x5a; FILE_BYTES + PAGE_BYTES];
    let start = memory.as_ptr().align_offset(PAGE_BYTES);
    let memory = &mut memory[start..start + FILE_BYTES];
    for _ in 0..2 {
        metrics.add("host_write", each(memory, |block, at| file.write_all_at(block, at))?);
        metrics.add("host_read", each(memory, |block, at| file.read_exact_at(block, at))?);
    }
    Ok(())
}

/// Transfers the file block by block; returns the nanoseconds of a page.
#[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^53")]
fn each(memory: &mut [u8], mut transfer: impl FnMut(&mut [u8], u64) -> std::io::Result<()>) -> Result<f64> {
    let start = Instant::now();
    for (block, at) in memory.chunks_exact_mut(BLOCK_BYTES).zip((0..).step_by(BLOCK_BYTES)) {
        transfer(block, at).context("transferring a block of the file to compare with")?;
    }
    Ok(start.elapsed().as_nanos() as f64 / (FILE_BYTES / PAGE_BYTES) as f64)
}
