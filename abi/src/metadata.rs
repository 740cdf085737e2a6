//! How much memory the guest kernel's metadata takes. With these sizes, a guest that is too small
//! for its machine is refused before it starts.
//!
//! The kernel keeps words for every huge frame of the *machine*, ballooned or not, and page tables
//! that map all of it. They lie after its image and have to fit into the memory that the guest
//! starts with. A test compares the kernel's own sizes with these.

use crate::units::{FRAME_BYTES, FrameCount, FrameNumber, HUGE_FRAMES};

/// Numbers for which one word of a bit tree has bits. Two levels of summaries are above it.
const WORD_BITS: u64 = 64;
/// Bit trees of the frame allocator, of the balloon's page list, and of both.
const ALLOCATOR_TREES: u64 = 7;
const PAGE_LIST_TREES: u64 = 2;
/// Words of each huge frame's bitmap; allocator and page list have one each.
const BITMAP_WORDS: u64 = 8;
/// Huge frames that share a word of states.
const STATES_IN_WORD: u64 = 2;
/// Frames that one page table maps.
const FRAMES_IN_TABLE: u64 = HUGE_FRAMES * HUGE_FRAMES;

/// Memory that a kernel needs beside its metadata: image, floor, some for the application.
const SMALLEST_WITHOUT_METADATA: FrameCount = FrameCount::from_mib(14);
/// Memory that every guest needs.
const SMALLEST: FrameCount = FrameCount::from_mib(16);

/// Returns the number of 64-bit words of metadata on a machine whose memory ends at `end`: those of
/// the frame allocator and of the page list.
#[must_use]
pub const fn words(end: FrameNumber) -> u64 {
    let huge = end.0.div_ceil(HUGE_FRAMES);
    let leaves = huge.div_ceil(WORD_BITS);
    let middle = leaves.div_ceil(WORD_BITS);
    let tree = leaves + middle + middle.div_ceil(WORD_BITS);
    (ALLOCATOR_TREES + PAGE_LIST_TREES) * tree + 2 * BITMAP_WORDS * huge + huge.div_ceil(STATES_IN_WORD)
}

/// Returns the number of frames of metadata on that machine: the words, and the tables that map
/// memory above the first gibibyte.
#[must_use]
pub const fn frames(end: FrameNumber) -> FrameCount {
    FrameCount((words(end) * 8).div_ceil(FRAME_BYTES) + end.0.div_ceil(FRAMES_IN_TABLE).saturating_sub(1))
}

/// Returns the smallest size at which a kernel can work on that machine, in whole huge frames.
#[must_use]
pub const fn smallest_size(end: FrameNumber) -> FrameCount {
    let needed = (SMALLEST_WITHOUT_METADATA.0 + frames(end).0).next_multiple_of(HUGE_FRAMES);
    if needed > SMALLEST.0 { FrameCount(needed) } else { SMALLEST }
}

#[cfg(test)]
mod tests {
    use super::{FrameCount, FrameNumber, frames, smallest_size};

    fn gib(gib: u64) -> FrameNumber {
        FrameNumber(gib << 18)
    }

    #[test]
    fn small_machines_need_the_minimum_and_the_largest_about_fifty_mib() {
        assert_eq!(smallest_size(FrameNumber(FrameCount::from_mib(512).0)), FrameCount::from_mib(16));
        assert_eq!(smallest_size(gib(16)), FrameCount::from_mib(16));
        assert_eq!(frames(gib(512)).0, 8522 + 511);
        assert_eq!(smallest_size(gib(512)), FrameCount::from_mib(50));
    }

    #[test]
    fn metadata_grows_with_the_machine() {
        assert!((1..512).all(|size| frames(gib(size)) < frames(gib(size + 1))));
        assert!((1..512).all(|size| smallest_size(gib(size)) <= smallest_size(gib(size + 1))));
    }
}
