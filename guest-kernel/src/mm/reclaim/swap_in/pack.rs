//! Packing zspages on disk: a zspage that has lost pages keeps its slots until it is read.
//!
//! A reclaim attempt that finds no free slot reads such a zspage into frames of the last reserve.
//! The compressed pool packs it into as many frames as it has pages, and all its slots are free:
//! one to three pages can be evicted for the one or two frames that it needs.

use aerostat_abi::units::FrameNumber;

use super::{ReadUnderWay, read_frames};
use crate::arch::x86_64::cpu;
use crate::mm::FRAMES;
use crate::mm::block::{Block, BlockSize};
use crate::mm::frame_allocator::Purpose;
use crate::mm::reclaim::RECLAIMER;
use crate::mm::reclaim::swap::compressed_pool::MAX_FRAMES;

/// Reads a zspage that has fewer pages than slots, and packs it. Returns whether slots have become
/// free. Waits for the disk; returns `false` where upcalls are masked.
pub(in crate::mm::reclaim) fn pack_zspage_on_disk() -> bool {
    if cpu::is_masked() {
        return false;
    }
    let Some(sparse) = RECLAIMER.lock().swap.first_sparse() else { return false };
    let Some(blocks) = allocate(sparse.slots) else { return false };
    let frames = blocks.each_ref().map(|block| block.as_ref().map_or(FrameNumber(0), Block::first));
    let _under_way = ReadUnderWay::begin(sparse.disk);
    let ticket = read_frames::begin_read(sparse.disk, sparse.slot, &frames[..sparse.slots]);
    let result = read_frames::finish_read(sparse.disk, ticket);
    RECLAIMER.lock().install_sparse(&sparse, blocks, result)
}

/// Allocates a frame for each slot, or none.
fn allocate(slots: usize) -> Option<[Option<Block>; MAX_FRAMES]> {
    let mut blocks = [const { None }; MAX_FRAMES];
    for block in &mut blocks[..slots] {
        *block = FRAMES.allocate(BlockSize::Frame, Purpose::CompressedPool);
    }
    if blocks.iter().flatten().count() == slots {
        return Some(blocks);
    }
    blocks.into_iter().flatten().for_each(|block| FRAMES.free_in_headroom(block));
    None
}
