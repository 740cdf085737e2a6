//! What benches on the host may drive: parts of the kernel that need no machine.

use std::time::{Duration, Instant};

use aerostat_abi::units::FrameCount;

use crate::mm::carve::Carver;
use crate::mm::{BlockSize, FrameAllocator, Purpose};
use crate::sync::SpinLock;

/// What is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// 4 KiB each.
    Frames,
    /// 2 MiB each.
    Huge,
}

/// Memory that the allocator believes to have.
const MEMORY: FrameCount = FrameCount::from_mib(1 << 10);

/// Takes and frees `pairs` blocks on each of `threads` threads, one block at a time, through one allocator and its lock; returns the
/// time until all are done.
///
/// # Panics
/// When the allocator has nothing to give, though everything is free.
#[must_use]
pub fn allocate_and_free(blocks: Blocks, threads: usize, pairs: u32) -> Duration {
    let words = vec![0; FrameAllocator::words(MEMORY)].leak();
    let size = if blocks == Blocks::Huge { BlockSize::Huge } else { BlockSize::Frame };
    let allocator = FrameAllocator::new(MEMORY, &[], FrameCount::ZERO, &mut Carver::new(words));
    let allocator = SpinLock::new(allocator);
    let work = || {
        for _ in 0..pairs {
            let block = allocator.lock().allocate(size, Purpose::Kernel).expect("all memory is free");
            allocator.lock().free(std::hint::black_box(block));
        }
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    start.elapsed()
}
