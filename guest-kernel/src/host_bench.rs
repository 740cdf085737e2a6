//! Parts of the kernel that need no machine, for benches on the host.
#![allow(unsafe_code, reason = "makes an allocator of frames that do not exist")]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use aerostat_abi::units::FrameCount;

use crate::mm::bump::BumpAllocator;
use crate::mm::{BlockSize, FrameAllocator, Frames, Purpose};

/// What is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// 4 KiB each, for pages.
    Frames,
    /// 2 MiB each.
    Huge,
}

/// The memory that the allocator is told of, which does not exist.
const MEMORY: FrameCount = FrameCount::from_mib(1 << 10);
/// Pairs that each thread makes before the measurement.
const WARM_UP: u32 = 1000;

/// Allocates and frees `pairs` committed blocks on each of `threads` threads, one block at a time,
/// from one allocator; each thread is a CPU. Returns the time until all are done.
///
/// # Panics
/// In debug builds, where freed frames are written to: there is no memory here. When an allocation
/// fails, though everything is free.
#[must_use]
pub fn allocate_and_free(blocks: Blocks, threads: usize, pairs: u32) -> Duration {
    if cfg!(debug_assertions) {
        panic!("the allocator without memory can be measured in release builds only");
    }
    let words = vec![0; FrameAllocator::words(MEMORY)].leak();
    let size = if blocks == Blocks::Huge { BlockSize::Huge } else { BlockSize::Frame };
    let frames = Frames::new();
    // SAFETY: nothing else allocates these numbers, and what they would refer to is never touched.
    let allocator = unsafe { FrameAllocator::new(MEMORY, [], FrameCount::ZERO, &mut BumpAllocator::new(words)) };
    frames.start(allocator, MEMORY);
    frames.charge_commit(FrameCount(MEMORY.0 / 2)).expect("all memory is free");
    let work = |pairs| {
        for _ in 0..pairs {
            let block = frames.allocate(size, Purpose::Committed).expect("half of the memory is committed");
            frames.free_committed(std::hint::black_box(block));
        }
    };
    let is_ready = Barrier::new(threads);
    let begin = || {
        work(WARM_UP);
        is_ready.wait();
        let start = Instant::now();
        work(pairs);
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(begin)).collect();
        let own = begin();
        let joined = others.into_iter().map(|other| other.join().expect("a thread of the bench does not panic"));
        joined.fold(own, Duration::max)
    })
}
