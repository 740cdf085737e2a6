//! Measures the host at the same work as the guest: touching and unmapping anonymous memory,
//! copying, and LZ4 page by page.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::mapping::{Mapping, PAGE_BYTES};
use crate::metrics::Metrics;
use crate::sample::median;

#[path = "../../../../guests/src/copying.rs"]
mod copying;
#[path = "../../../../guests/src/text.rs"]
mod text;

// Sizes as in the guest.
const LARGE_BYTES: usize = 192 << 20;
const SMALL_BYTES: usize = (2 << 20) - PAGE_BYTES;
const SMALL_REGIONS: usize = 32;
const APART_BYTES: usize = 128 << 10;

/// Takes a sample of each figure; `html` has pages of text.
pub(super) fn measure(metrics: &mut Metrics, html: &[[u8; PAGE_BYTES]]) -> Result<()> {
    let large = Mapping::new(LARGE_BYTES)?;
    large.advise_huge()?;
    metrics.add("host_huge_touch", each(LARGE_BYTES / PAGE_BYTES, || large.touch_all()));
    drop(large);
    let mut lone = Vec::new();
    for _ in 0..SMALL_REGIONS {
        let region = Mapping::new(SMALL_BYTES)?;
        region.touch(0);
        lone.extend((APART_BYTES..SMALL_BYTES).step_by(APART_BYTES).map(|at| each(1, || region.touch(at))));
    }
    metrics.add("host_lone_touch", median(lone));
    let regions = (0..SMALL_REGIONS).map(|_| Mapping::new(SMALL_BYTES)).collect::<Result<Vec<_>>>()?;
    let pages = SMALL_REGIONS * SMALL_BYTES / PAGE_BYTES;
    metrics.add("host_small_touch", each(pages, || regions.iter().for_each(Mapping::touch_all)));
    metrics.add("host_unmap", each(pages, || drop(regions)));
    measure_copies(metrics);
    let mut prose = vec![[0; PAGE_BYTES]; html.len()];
    prose.iter_mut().enumerate().for_each(|(number, page)| text::fill(page, number));
    measure_lz4(metrics, ["host_prose_out", "host_prose_in"], &prose);
    measure_lz4(metrics, ["host_text_out", "host_text_in"], html);
    Ok(())
}

fn measure_copies(metrics: &mut Metrics) {
    let from = vec![1; copying::LARGE_BYTES];
    let mut to = vec![2; copying::LARGE_BYTES];
    metrics.add("host_copy_pages", each(copying::LARGE_BYTES / PAGE_BYTES, || _ = copying::large(&from, &mut to)));
    metrics.add("host_copy_small", each(copying::SMALL_COPIES, || _ = copying::small(&[1; 64], &mut [0; 64])));
}

/// Compresses and decompresses pages.
fn measure_lz4(metrics: &mut Metrics, [out_name, in_name]: [&str; 2], pages: &[[u8; PAGE_BYTES]]) {
    let mut table = CompressTable::small();
    let mut compressed = vec![[0; get_maximum_output_size(PAGE_BYTES)]; pages.len()];
    let mut lengths = vec![0; pages.len()];
    metrics.add(
        out_name,
        each(pages.len(), || {
            for (page, (output, length)) in pages.iter().zip(compressed.iter_mut().zip(&mut lengths)) {
                *length = compress_into_with_table(page, output, &mut table).expect("the output has room for any page");
            }
        }),
    );
    let mut page = [0; PAGE_BYTES];
    metrics.add(
        in_name,
        each(pages.len(), || {
            for (output, length) in compressed.iter().zip(&lengths) {
                decompress_into(&output[..*length], black_box(&mut page))
                    .expect("compressed pages can be decompressed");
            }
        }),
    );
}

/// Runs `work`, which has `count` operations; returns the nanoseconds of one.
#[expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^53")]
fn each(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}
