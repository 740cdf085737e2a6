//! Measures the application `index` with memory for its working set and with three quarters of
//! that: the cost of a squeeze for a program that uses memory as real ones do. Its working set is
//! all that it touches in a round: the text, which it reads again in each, and the index.

use std::fs;
use std::io::Read;
use std::path::Path;

use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode};
use aerostat_abi::exit::GuestExit;
use aerostat_tests::text::pack;
use aerostat_tests::{Machine, Plan};
use anyhow::{Context, Result, anyhow};
use inverted_index::Index;

use crate::reclaim::index::text;
use crate::row::Row;
use crate::sample::median;

/// Bytes of text, whose index takes some twenty MiB.
const TEXT_BYTES: u64 = 64 << 20;
/// Memory that a guest needs besides: image, metadata, the kernel's floor.
const REST_MIB: u64 = 8;
const SWAP_MIB: u64 = 256;
/// Pairs of guests.
const TURNS: usize = 5;

pub(super) fn measure() -> Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let archive = folder.path().join("text.tar");
    println!("index: {}", pack(&text()?, Some(TEXT_BYTES), &archive)?);
    let text_bytes = fs::metadata(&archive)?.len();
    let natural = (text_bytes + index_bytes(&archive)? as u64).div_ceil(1 << 20) + REST_MIB;
    let squeezed = (natural * 3 / 4).next_multiple_of(2);
    println!("index: natural working set {natural} MiB, squeezed to {squeezed} MiB");
    let (mut natural_s, mut squeezed_s) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        natural_s.push(round_seconds(&archive, natural.next_multiple_of(2))?);
        squeezed_s.push(round_seconds(&archive, squeezed)?);
    }
    let slowdown = squeezed_s.iter().zip(&natural_s).map(|(squeezed, natural)| squeezed / natural).collect();
    Ok(vec![
        Row::cost("index_squeezed_s", median(squeezed_s), "s", median(natural_s)),
        Row::plain("index_slowdown", median(slowdown), "x").goal(1.5),
    ])
}

/// Returns the bytes of the finished index, as the application's library counts them.
fn index_bytes(archive: &Path) -> Result<usize> {
    let mut index = Index::default();
    let mut text = Vec::new();
    for file in tar::Archive::new(fs::File::open(archive)?).entries()? {
        text.clear();
        file?.read_to_end(&mut text)?;
        index.add_file(&text).map_err(|why| anyhow!("indexing on the host: {why}"))?;
    }
    Ok(index.sort().map_err(|why| anyhow!("sorting on the host: {why}"))?.bytes())
}

/// Returns the seconds that a guest takes for its second round, when text and index have been in
/// its memory before.
fn round_seconds(archive: &Path, memory_mib: u64) -> Result<f64> {
    let disk = DataDisk { path: archive.to_owned(), mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    let plan = Plan::app("index").memory_mib(memory_mib).disk(disk).swap_mib(SWAP_MIB).command_line("repeat=2");
    let mut guest = plan.boot(Machine::Kvm);
    guest.expect_exit(GuestExit::Success);
    let log = guest.log();
    let ends: Vec<f64> = log.lines().filter(|line| line.contains(", digest ")).filter_map(timestamp).collect();
    match ends[..] {
        [first, second] => Ok(second - first),
        _ => Err(anyhow!("the index has not logged two rounds:\n{log}")),
    }
}

/// Returns the time at the beginning of a line of a guest's log.
fn timestamp(line: &str) -> Option<f64> {
    line.strip_prefix('[')?.split(']').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn a_line_of_a_log_begins_with_its_time() {
        assert_eq!(timestamp("[    2.500000] INFO  index: 5 terms, digest 0"), Some(2.5));
        assert_eq!(timestamp("index"), None);
    }
}
