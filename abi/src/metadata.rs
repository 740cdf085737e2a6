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

/// Slots of a swap disk that share a cluster. The slot map has three bit trees, and one word for
/// each cluster.
const SLOTS_IN_CLUSTER: u64 = 64;
const SLOT_MAP_TREES: u64 = 3;
/// Slots that share a word with their uses.
const SLOTS_IN_WORD: u64 = 2;
/// The largest part of a swap disk that is used: 64 GiB.
const MOST_SLOTS: u64 = 1 << 24;

/// Memory that a kernel needs beside its metadata: image, floor, some for the application.
const SMALLEST_WITHOUT_METADATA: FrameCount = FrameCount::from_mib(14);
/// Memory that every guest needs.
const SMALLEST: FrameCount = FrameCount::from_mib(16);

/// Returns the number of 64-bit words of metadata on a machine whose memory ends at `end`: those of
/// the frame allocator and of the page list.
#[must_use]
pub const fn words(end: FrameNumber) -> u64 {
    let huge = end.0.div_ceil(HUGE_FRAMES);
    (ALLOCATOR_TREES + PAGE_LIST_TREES) * tree_words(huge) + 2 * BITMAP_WORDS * huge + huge.div_ceil(STATES_IN_WORD)
}

/// Returns the number of 64-bit words in the slot map of a swap disk of `slots` slots of 4 KiB.
#[must_use]
pub const fn swap_words(slots: u64) -> u64 {
    let used = if slots < MOST_SLOTS { slots } else { MOST_SLOTS };
    let clusters = used / SLOTS_IN_CLUSTER;
    SLOT_MAP_TREES * tree_words(clusters) + clusters + (clusters * SLOTS_IN_CLUSTER).div_ceil(SLOTS_IN_WORD)
}

/// Returns the number of words of a bit tree for the numbers below `length`.
const fn tree_words(length: u64) -> u64 {
    let leaves = length.div_ceil(WORD_BITS);
    let middle = leaves.div_ceil(WORD_BITS);
    leaves + middle + middle.div_ceil(WORD_BITS)
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
    smallest_size_with_swap(end, 0)
}

/// Returns the same for a kernel that uses a swap disk of `slots` slots of 4 KiB.
#[must_use]
pub const fn smallest_size_with_swap(end: FrameNumber, slots: u64) -> FrameCount {
    let swap = (swap_words(slots) * 8).div_ceil(FRAME_BYTES);
    let needed = (SMALLEST_WITHOUT_METADATA.0 + frames(end).0 + swap).next_multiple_of(HUGE_FRAMES);
    if needed > SMALLEST.0 { FrameCount(needed) } else { SMALLEST }
}

#[cfg(test)]
mod tests {
    use super::{FrameCount, FrameNumber, frames, smallest_size, smallest_size_with_swap};

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
    fn a_swap_disk_costs_a_little_more_than_four_bytes_a_slot() {
        let with_swap = |gib: u64| smallest_size_with_swap(FrameNumber(FrameCount::from_mib(512).0), gib << 18).mib();
        assert_eq!([0, 1, 16, 64, 1000].map(with_swap), [16, 16, 32, 82, 82]);
    }

    #[test]
    fn metadata_grows_with_the_machine() {
        assert!((1..512).all(|size| frames(gib(size)) < frames(gib(size + 1))));
        assert!((1..512).all(|size| smallest_size(gib(size)) <= smallest_size(gib(size + 1))));
    }
}
