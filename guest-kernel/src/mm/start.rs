//! Sets memory up: from the ranges that the loader found to a frame allocator and an identity map.
//! No step takes time per frame, and none per GiB but to note that it is free.
#![allow(unsafe_code, reason = "takes over memory and the page tables of the image")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, to_usize};

use super::address_space::{self, RegionKind};
use super::block::{Block, BlockSize, Contents};
use super::bump::BumpAllocator;
use super::extent::{self, Extent};
use super::frame_allocator::FrameAllocator;
use super::page_table::{Image, PageTables};
use super::{FRAMES, OutOfMemory, SPACE, identity};
use crate::arch::x86_64::{cpu, ring0};
use crate::config::KERNEL_FLOOR;
use crate::layout;

/// The memory that the kernel finds when it starts.
#[derive(Debug)]
pub(crate) struct InstalledMemory<'a> {
    /// All of it, as ranges of addresses: sorted, of whole frames, apart from each other.
    pub(crate) ranges: &'a [Range<u64>],
    /// What is in memory that no code has written to.
    pub(crate) untouched: Contents,
    /// The part of it that holds the kernel's image.
    pub(crate) image: Image,
}

impl InstalledMemory<'_> {
    fn total(&self) -> FrameCount {
        FrameCount(self.ranges.iter().map(|range| (range.end - range.start) / FRAME_BYTES).sum())
    }

    /// Returns the frame behind the last one that the kernel uses.
    fn end(&self) -> FrameNumber {
        let end = self.ranges.last().map_or(0, |range| range.end);
        FrameNumber::containing(end.min(layout::IDENTITY_END))
    }

    /// Returns what must not be handed out below `end`: low memory, the image with the metadata
    /// behind it, up to `used_end`, and every hole between the ranges.
    fn reserved(&self, used_end: u64, end: FrameNumber) -> impl Iterator<Item = Range<FrameNumber>> {
        let starts = self.ranges.iter().map(|range| range.start).chain([end.address()]);
        let ends = core::iter::once(0).chain(self.ranges.iter().map(|range| range.end));
        let holes = ends.zip(starts).map(|(end, next)| end..next).filter(|hole| !hole.is_empty());
        [0..layout::LOW_MEMORY_END, layout::IMAGE_BASE..used_end]
            .into_iter()
            .chain(holes)
            .map(|range| FrameNumber::containing(range.start)..FrameNumber(range.end.div_ceil(FRAME_BYTES)))
    }
}

/// Builds the frame allocator and maps the first gibibyte; [`identity`] maps the others.
/// `more_words` returns how many words other parts
/// of the kernel need for their own metadata on a machine of that size; the returned allocator
/// supplies them. Called once.
///
/// # Errors
/// [`OutOfMemory`] when the metadata doesn't fit behind the image.
pub(crate) fn start(
    memory: &InstalledMemory<'_>,
    more_words: fn(FrameNumber) -> usize,
) -> Result<BumpAllocator, OutOfMemory> {
    let (image, end) = (&memory.image, memory.end());
    let words = FrameAllocator::words(FrameCount(end.0)) + more_words(end);
    let metadata = image.end..image.end + (words as u64 * 8).next_multiple_of(FRAME_BYTES);
    let identity_tables = metadata.end + first_gib_tables(image) * FRAME_BYTES;
    let tables_end = identity_tables + identity::tables(end) * FRAME_BYTES;
    let first_range = memory.ranges.iter().find(|range| range.contains(&metadata.start)).ok_or(OutOfMemory)?;
    if tables_end + 2 * HUGE_BYTES > first_range.end.min(layout::BOOT_IDENTITY_END) {
        return Err(OutOfMemory);
    }
    adopt_page_tables(image, end, metadata.end);
    // SAFETY: these frames lie behind the image and all else, and are reserved below.
    unsafe { identity::start(FrameNumber::containing(identity_tables)) };
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(to_usize(metadata.start));
    // SAFETY: the range lies in memory behind the image, where nothing else is; any bits are words,
    // and they are zeroed below unless they are zero.
    let words = unsafe { core::slice::from_raw_parts_mut(pointer, words) };
    if memory.untouched != Contents::Zero {
        words.fill(0);
    }
    let mut bump = BumpAllocator::new(words);
    let reserved = memory.reserved(tables_end, end);
    // SAFETY: the loader has handed over all of this memory, and what is in use of it is reserved.
    let mut allocator = unsafe { FrameAllocator::new(FrameCount(end.0), reserved, KERNEL_FLOOR, &mut bump) };
    if memory.untouched != Contents::Zero {
        allocator.distrust_unbacked();
    }
    FRAMES.start(allocator, memory.total());
    extent::set(Extent { total: memory.total(), end });
    address_space::place_region(RegionKind::Stack, &layout::STACKS)?;
    Ok(bump)
}

/// Returns how many page tables it takes to map the first gibibyte: the table of its slots, and one
/// for each slot up to the end of the image's constants, which is mapped page by page.
fn first_gib_tables(image: &Image) -> u64 {
    1 + image.constants_end.div_ceil(HUGE_BYTES)
}

/// Adopts the image's page tables, and maps the first gibibyte anew, with tables in the frames from
/// `free` on: with the access rights of each part of the image, and without low memory and what is
/// not memory.
fn adopt_page_tables(image: &Image, end: FrameNumber, free: u64) {
    // SAFETY: the boot tables are static, identity-mapped, and from here on changed under the lock
    // of `SPACE` only.
    let mut tables = unsafe { PageTables::new(FrameNumber::containing(ring0::page_table_root())) };
    let mut free = FrameNumber::containing(free);
    // SAFETY: the caller has seen that as many frames as are taken lie in memory that nothing uses,
    // and reserves them.
    let mut take_frame = || unsafe {
        let frame = Block::from_raw(free, BlockSize::Frame, Contents::Unknown);
        free = FrameNumber(free.0 + 1);
        frame
    };
    tables.map_first_gib(image, end, &mut take_frame);
    cpu::flush_tlb();
    SPACE.lock().tables = Some(tables);
}
