//! Measures the stack that page faults use: paints the stack below a function that touches memory
//! on disk, and finds how much of the paint is overwritten.

#![no_std]
#![no_main]

extern crate alloc;

use core::arch::asm;
use core::hint::black_box;

use aerostat_guest::app::memory::{Mapping, OutOfMemory};
use aerostat_guest::app::{FAULT_STACK_BYTES, Outcome};

aerostat_guest::app!(main);

/// More than twice the memory of the guest.
const BYTES: usize = 140 << 20;
const PAGE_BYTES: usize = 4096;
/// Words that are painted, well within a thread's stack.
const PAINTED_WORDS: usize = (4 * FAULT_STACK_BYTES / 8) as usize;
const PAINT: u64 = 0xa5a5_5a5a_c3c3_3c3c;
/// Words between the stack pointer and the paint, for the functions that paint and measure.
const OWN_WORDS: usize = 64;

fn main() -> Outcome {
    let result = [noise, text, zeros].into_iter().try_fold(0, |deepest, contents| {
        let depth = depth_of_faults(contents)?;
        Ok::<_, OutOfMemory>(depth.max(deepest))
    });
    let Ok(deepest) = result else { return Outcome::Failure };
    log::info!("fault stack: {deepest} of {FAULT_STACK_BYTES} bytes");
    // A tenth is left for paths that this run has not taken.
    if deepest * 10 <= FAULT_STACK_BYTES * 9 { Outcome::Success } else { Outcome::Failure }
}

/// Fills memory, most of which goes to disk, reads it in order and writes it in reverse order;
/// returns the stack that was used.
fn depth_of_faults(contents: fn(usize) -> u64) -> Result<u64, OutOfMemory> {
    let mut memory = Mapping::anonymous(BYTES)?;
    let top = paint();
    for (place, word) in memory.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = contents(place).to_le_bytes();
    }
    for at in (0..BYTES).step_by(PAGE_BYTES) {
        black_box(memory[at]);
    }
    for at in (0..BYTES).step_by(PAGE_BYTES).rev() {
        memory[at] ^= 1;
    }
    Ok(gone_from(top))
}

/// Paints the stack, a little below the stack pointer; returns the address above the paint.
#[inline(never)]
fn paint() -> usize {
    let top = stack_pointer() - OWN_WORDS * 8;
    for word in (1..=PAINTED_WORDS).map(|number| top - number * 8) {
        // SAFETY: so far below the stack pointer is still the thread's stack, and nothing uses it.
        unsafe { core::ptr::with_exposed_provenance_mut::<u64>(word).write_volatile(PAINT) };
    }
    top
}

/// Returns the bytes between the top of the paint and the part of it that is left.
#[inline(never)]
fn gone_from(top: usize) -> u64 {
    let is_paint = |word: &usize| {
        // SAFETY: as above, and the frames of faults are gone.
        unsafe { core::ptr::with_exposed_provenance::<u64>(*word).read_volatile() == PAINT }
    };
    let lowest = top - PAINTED_WORDS * 8;
    let left = (lowest..top).step_by(8).take_while(is_paint).count();
    ((PAINTED_WORDS - left) * 8) as u64
}

fn stack_pointer() -> usize {
    let pointer;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Returns words of pages that go to disk uncompressed.
fn noise(place: usize) -> u64 {
    let mut word = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Returns words of pages that go to the compressed pool, and from there to disk.
fn text(place: usize) -> u64 {
    let page = (place / 512) as u64;
    if place.is_multiple_of(2) { noise(place) } else { page }
}

/// Returns words of pages that need neither pool nor disk.
fn zeros(_: usize) -> u64 {
    0
}
