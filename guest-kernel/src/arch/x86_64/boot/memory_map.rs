//! The memory map: ranges of usable memory.

use core::ops::Range;

use aerostat_abi::units::{FRAME_BYTES, FrameCount};

use super::machine::MachineError;
use crate::layout;

/// The most ranges of memory that are used: of more, the largest.
const MAX_RANGES: usize = 16;

/// Ranges of usable memory: sorted, whole frames, none of it in the device hole below 4 GiB.
#[derive(Debug)]
pub(crate) struct MemoryMap {
    ranges: [Range<u64>; MAX_RANGES],
    count: usize,
}

impl MemoryMap {
    /// Cuts the loader's ranges to what can be used.
    ///
    /// # Errors
    /// [`MachineError::BadMemoryMap`] when nothing is left, or ranges overlap.
    pub(super) fn new(ranges: impl Iterator<Item = Range<u64>>) -> Result<Self, MachineError> {
        let mut map = Self { ranges: [const { 0..0 }; MAX_RANGES], count: 0 };
        // Memory in the device hole is left alone; a range may lie on both sides of it.
        let hole = layout::DEVICE_HOLE;
        let around_hole =
            |range: Range<u64>| [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end];
        for range in ranges.flat_map(around_hole) {
            let Some(start) = range.start.checked_next_multiple_of(FRAME_BYTES) else { continue };
            let whole = start..(range.end - range.end % FRAME_BYTES).min(layout::IDENTITY_END);
            if whole.is_empty() {
                continue;
            }
            map.add(whole);
        }
        let used = &mut map.ranges[..map.count];
        used.sort_unstable_by_key(|range| range.start);
        let overlaps = used.windows(2).any(|pair| pair[0].end > pair[1].start);
        if used.is_empty() || overlaps { Err(MachineError::BadMemoryMap) } else { Ok(map) }
    }

    /// Adds a range, for which the smallest one makes room if there are too many.
    fn add(&mut self, range: Range<u64>) {
        let bytes = |range: &Range<u64>| range.end - range.start;
        if let Some(free) = self.ranges.get_mut(self.count) {
            *free = range;
            self.count += 1;
        } else if let Some(smallest) = self.ranges.iter_mut().min_by_key(|range| bytes(range))
            && bytes(smallest) < bytes(&range)
        {
            *smallest = range;
        }
    }

    /// Returns how many frames there are.
    pub(crate) fn total(&self) -> FrameCount {
        FrameCount(self.iter().map(|range| (range.end - range.start) / FRAME_BYTES).sum())
    }
}

impl core::ops::Deref for MemoryMap {
    type Target = [Range<u64>];

    fn deref(&self) -> &[Range<u64>] {
        &self.ranges[..self.count]
    }
}
