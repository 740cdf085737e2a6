//! First touch and release of memory.

use core::hint::black_box;

use aerostat_guest::app::Instant;
use alloc::vec;
use alloc::vec::Vec;

use crate::{PAGE_BYTES, log, measured};

/// A region that huge pages fit into.
const LARGE_BYTES: usize = 192 << 20;
/// A region that no huge page fits into, and how many of them.
const SMALL_BYTES: usize = (2 << 20) - PAGE_BYTES;
const SMALL_REGIONS: usize = 32;
/// Distance of lone faults: beyond what one of them brings in.
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

/// One touch here and one there, each timed by itself; the median is the figure.
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

/// Regions of 4 KiB pages only, all of them mapped, dropped one after the other.
fn unmap() {
    let regions: Vec<Vec<u8>> = (0..SMALL_REGIONS).map(|_| region(SMALL_BYTES)).collect();
    let pages = SMALL_REGIONS * SMALL_BYTES / PAGE_BYTES;
    let regions: Vec<Vec<u8>> = measured("fault_sequential_small", pages, || {
        regions.into_iter().map(|region| touched(region, PAGE_BYTES)).collect()
    });
    measured("unmap", pages, || drop(regions));
}

/// Zeroed memory that nothing has touched yet: an allocation of this size is a region of its own.
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
