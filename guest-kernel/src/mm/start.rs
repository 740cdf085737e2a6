//! Sets memory up: from the memory map to a frame allocator and a full identity map. No step takes
//! time per frame.
#![allow(unsafe_code, reason = "takes over memory and the page tables of the image")]

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_BYTES, HUGE_SIZE, to_usize};

use super::address_space::{self, RegionKind};
use super::block::{Block, BlockSize, Contents};
use super::bump::BumpAllocator;
use super::extent::{self, Extent};
use super::frame_allocator::FrameAllocator;
use super::page_table::PageTables;
use super::{FRAMES, SPACE};
use crate::arch::x86_64::boot::{Machine, MachineError};
use crate::arch::x86_64::ring0;
use crate::config::KERNEL_FLOOR;
use crate::layout;

/// Most ranges that must not be handed out: holes, and what is in use already.
const MAX_RESERVED: usize = crate::arch::x86_64::boot::MAX_RANGES + 2;

/// Builds the frame allocator and maps all memory. `more_words` returns how many words other parts
/// of the kernel need for their own metadata on a machine of that size; the returned allocator
/// supplies them.
///
/// # Errors
/// [`MachineError::TooSmall`] when the metadata doesn't fit behind the image.
pub(crate) fn start(machine: &Machine, more_words: fn(FrameNumber) -> usize) -> Result<BumpAllocator, MachineError> {
    let image_end = crate::arch::x86_64::boot::image_range().end;
    let end = FrameNumber::containing(machine.memory_end().min(layout::IDENTITY_END));
    let words = FrameAllocator::words(FrameCount(end.0)) + more_words(end);
    let metadata = image_end..image_end + (words as u64 * 8).next_multiple_of(FRAME_BYTES);
    let tables_end = metadata.end + (identity_tables(end) + image_slots().count() as u64) * FRAME_BYTES;
    let first_range =
        machine.memory.iter().find(|range| range.contains(&metadata.start)).ok_or(MachineError::TooSmall)?;
    if tables_end + 2 * HUGE_BYTES > first_range.end.min(layout::BOOT_IDENTITY_END) {
        return Err(MachineError::TooSmall);
    }
    adopt_page_tables(end, metadata.end);
    let mut reserved = [const { FrameNumber(0)..FrameNumber(0) }; MAX_RESERVED];
    let count = reserved_ranges(machine, tables_end, end, &mut reserved);
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(to_usize(metadata.start));
    // SAFETY: the range lies in memory behind the image, where nothing else is; any bits are words,
    // and they are zeroed below unless they are zero.
    let words = unsafe { core::slice::from_raw_parts_mut(pointer, words) };
    if !machine.is_memory_zeroed {
        words.fill(0);
    }
    let mut bump = BumpAllocator::new(words);
    let mut allocator = FrameAllocator::new(FrameCount(end.0), &reserved[..count], KERNEL_FLOOR, &mut bump);
    if !machine.is_memory_zeroed {
        allocator.distrust_untouched();
    }
    FRAMES.start(allocator, machine.total_frames());
    extent::set(Extent { total: machine.total_frames(), end });
    address_space::place_region(RegionKind::Stack, &layout::STACKS).map_err(|_| MachineError::TooSmall)?;
    Ok(bump)
}

/// Returns how many page tables it takes to map what lies beyond the first gibibyte.
fn identity_tables(end: FrameNumber) -> u64 {
    end.address().div_ceil(layout::BOOT_IDENTITY_END) - 1
}

/// Returns the slots that hold code or constants of the image: they are mapped page by page.
fn image_slots() -> impl Iterator<Item = u64> {
    (layout::IMAGE_BASE..crate::arch::x86_64::boot::constants_end_address()).step_by(HUGE_SIZE)
}

/// Adopts the image's page tables: maps the memory that they don't reach, with tables in the frames
/// from `free` on, sets the access rights of each part of the image, and unmaps low memory and what
/// is not memory.
fn adopt_page_tables(end: FrameNumber, free: u64) {
    // SAFETY: the boot tables are static, identity-mapped, and from here on changed under the lock
    // of `SPACE` only.
    let mut tables = unsafe { PageTables::new(FrameNumber::containing(ring0::page_table_root())) };
    let mut free = FrameNumber::containing(free);
    for gib in 1..=identity_tables(end) {
        if gib == layout::LOCAL_APIC / layout::BOOT_IDENTITY_END {
            continue;
        }
        let table = Block::from_number(free, BlockSize::Frame, Contents::Zero);
        free = FrameNumber(free.0 + 1);
        if let Err(table) = tables.map_identity_gib(gib * layout::BOOT_IDENTITY_END, table, &mut |_| None) {
            unreachable!("the root of the boot tables has no entry for {:?}", table.into_number());
        }
    }
    let mut code_end = layout::IMAGE_BASE;
    for slot in image_slots() {
        let table = Block::from_number(free, BlockSize::Frame, Contents::Unknown);
        free = FrameNumber(free.0 + 1);
        tables.map_identity_pages(slot, table, crate::arch::x86_64::boot::image_part);
        code_end = slot + HUGE_BYTES;
    }
    (code_end..layout::BOOT_CODE_END).step_by(HUGE_SIZE).for_each(|slot| tables.forbid_execution(slot));
    let beyond = end.address().next_multiple_of(HUGE_BYTES)..layout::BOOT_IDENTITY_END;
    for slot in (0..layout::LOW_MEMORY_END).chain(beyond).step_by(HUGE_SIZE) {
        tables.unmap_identity(slot);
    }
    crate::arch::x86_64::cpu::flush_tlb();
    SPACE.lock().tables = Some(tables);
}

/// Returns low memory, the image with its metadata, and every hole between the ranges of the memory
/// map.
fn reserved_ranges(
    machine: &Machine,
    used_end: u64,
    end: FrameNumber,
    reserved: &mut [Range<FrameNumber>; MAX_RESERVED],
) -> usize {
    let frames =
        |range: Range<u64>| FrameNumber(range.start / FRAME_BYTES)..FrameNumber(range.end.div_ceil(FRAME_BYTES));
    reserved[0] = frames(0..used_end); // low memory, the image behind it, the metadata behind that
    let mut count = 1;
    let mut at = 0;
    for range in machine.memory.iter().chain(core::iter::once(&(end.address()..end.address()))) {
        if range.start > at {
            reserved[count] = frames(at..range.start);
            count += 1;
        }
        at = range.end;
    }
    count
}
