//! Large and small copies of memory. The guest `bench_memory` and the bench `memory` both include
//! this file.

use core::hint::black_box;

/// Bytes of the large copies, which do not fit the processor's caches.
pub(crate) const LARGE_BYTES: usize = 64 << 20;
/// The number of small copies, which stay in the first-level cache.
pub(crate) const SMALL_COPIES: usize = 1 << 20;
const PAGE_BYTES: usize = 4096;

/// Copies page by page; returns the number of pages.
pub(crate) fn large(from: &[u8], to: &mut [u8]) -> usize {
    for (from, to) in from.chunks_exact(PAGE_BYTES).zip(to.chunks_exact_mut(PAGE_BYTES)) {
        black_box(to).copy_from_slice(black_box(from));
    }
    LARGE_BYTES / PAGE_BYTES
}

/// Makes copies of 1 to 64 bytes whose lengths the compiler does not know; returns their number.
pub(crate) fn small(from: &[u8; 64], to: &mut [u8; 64]) -> usize {
    for copy in 0..SMALL_COPIES {
        let length = black_box(copy % 64 + 1);
        black_box(&mut to[..length]).copy_from_slice(black_box(&from[..length]));
    }
    SMALL_COPIES
}
