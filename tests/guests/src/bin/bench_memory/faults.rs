//! Measures the first touch and the release of memory.

use core::hint::black_box;

use aerostat_guest::app::Instant;
use alloc::vec;
use alloc::vec::Vec;

use crate::{PAGE_BYTES, log, measured};

/// The size of a region that huge pages fit into.
const LARGE_BYTES: usize = 192 << 20;
/// The size of a region that no huge page fits into.
const SMALL_BYTES: usize = (2 << 20) - PAGE_BYTES;
const SMALL_REGIONS: usize = 32;
/// The distance of lone faults, which is more than one of them maps.
const APART_BYTES: usize = 128 << 10;

pub(crate) fn measure() {
    let large = region(LARGE_BYTES);
    let large = measured("fault_sequential_fresh", LARGE_BYTES / PAGE_BYTES, || touched(large, PAGE_BYTES));
    drop(large);
    let large = region(LARGE_BYTES);
    let large = measured("fault_sequential_reused", LARGE_BYTES / PAGE_BYTES, || touched(large, PAGE_BYTES));
    drop(large);
    lone_faults();
    unmap();
}

/// Touches single pages far apart and times each touch; the figure is the median.
fn lone_faults() {
    let mut regions: Vec<Vec<u8>> = (0..SMALL_REGIONS).map(|_| region(SMALL_BYTES)).collect();
    let mut times = Vec::with_capacity(SMALL_REGIONS * SMALL_BYTES / APART_BYTES);
    for region in &mut regions {
        touch(region, 0); // makes the page table
        for at in (APART_BYTES..SMALL_BYTES).step_by(APART_BYTES) {
            let start = Instant::now();
            touch(region, at);
            times.push(Instant::now().since(start));
        }
    }
    times.sort_unstable();
    log("fault_lone", times[times.len() / 2], 1);
}

/// Touches regions that have only 4 KiB pages, then drops them one after the other.
fn unmap() {
    let regions: Vec<Vec<u8>> = (0..SMALL_REGIONS).map(|_| region(SMALL_BYTES)).collect();
    let pages = SMALL_REGIONS * SMALL_BYTES / PAGE_BYTES;
    let regions: Vec<Vec<u8>> = measured("fault_sequential_small", pages, || {
        regions.into_iter().map(|region| touched(region, PAGE_BYTES)).collect()
    });
    measured("unmap", pages, || drop(regions));
}

/// Allocates zeroed memory without touching it: an allocation of this size is a region of its own.
fn region(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}

fn touched(mut region: Vec<u8>, step: usize) -> Vec<u8> {
    for at in (0..region.len()).step_by(step) {
        touch(&mut region, at);
    }
    region
}

fn touch(region: &mut [u8], at: usize) {
    *black_box(&mut region[at]) = 1;
}
