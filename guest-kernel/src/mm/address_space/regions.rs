//! All regions, sorted by address.

use core::ops::Range;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};

use super::region_list::{InsertError, Position, RegionList};
use super::{Region, RegionKind};
use crate::mm::block::Block;
use crate::mm::reclaim::scan::balance::PageKind;

/// All regions, in the order of their addresses.
#[derive(Debug)]
pub(crate) struct Regions {
    list: RegionList,
}

impl Regions {
    pub(crate) const fn new() -> Self {
        Self { list: RegionList::new() }
    }

    /// Returns the region that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get(index).filter(|region| region.range.contains(&address))
    }

    /// Returns the region that holds `address`, to change it.
    pub(crate) fn find_mut(&mut self, address: u64) -> Option<&mut Region> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        self.list.get_mut(index).filter(|region| region.range.contains(&address))
    }

    /// Subtracts `frames` drawn frames from the commit charge of the region that holds `address`.
    pub(crate) fn draw(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            debug_assert!(region.commit_charge >= frames, "a region drew more than it was committed");
            region.commit_charge = region.commit_charge.saturating_sub(frames);
        }
    }

    /// Adds `frames` freed frames to the commit charge of the region that holds `address`.
    pub(crate) fn restore_commit_charge(&mut self, address: u64, frames: FrameCount) {
        if let Some(region) = self.find_mut(address) {
            region.commit_charge = region.commit_charge.saturating_add(frames);
        }
    }

    /// Returns the first slot at or behind `address` that belongs to a region with pages of this
    /// kind: where it starts, not before `address`, and where it or the region ends.
    pub(crate) fn next_slot(&self, kind: PageKind, address: u64) -> Option<(u64, u64)> {
        let index = self.list.partition_point(|region| region.range.end <= address);
        let region =
            self.list.iter_from(index).find(|region| region.page_kind() == Some(kind) && !region.range.is_empty())?;
        let at = address.max(region.range.start);
        Some((at, (at + 1).next_multiple_of(HUGE_BYTES).min(region.range.end)))
    }

    /// Puts a region of `bytes` into the first gap of `within`, at least one unmapped slot apart
    /// from its neighbours. Returns where the region begins. `spare` is used when the list of
    /// regions needs another frame.
    ///
    /// # Errors
    /// [`InsertError`].
    pub(crate) fn insert(
        &mut self,
        kind: RegionKind,
        within: Range<u64>,
        bytes: u64,
        commit_charge: FrameCount,
        spare: &mut Option<Block>,
    ) -> Result<u64, InsertError> {
        let (start, end) = self.first_gap(&within, bytes).ok_or(InsertError::NoAddresses)?;
        let at = self.list.partition_point(|region| region.range.start < start);
        self.list.insert(at, Region::new(kind, start..end, commit_charge), spare)?;
        Ok(start)
    }

    fn first_gap(&self, within: &Range<u64>, bytes: u64) -> Option<(u64, u64)> {
        let mut start = within.start;
        for next in self.list.iter_from(self.list.partition_point(|region| region.reserved_end <= within.start)) {
            if next.range.start >= start.checked_add(bytes)?.checked_add(HUGE_BYTES)? {
                break;
            }
            start = next.reserved_end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES;
        }
        let end = start.checked_add(bytes).filter(|&end| end <= within.end)?;
        Some((start, end))
    }

    /// Adds a region of the kernel at a fixed place; otherwise as [`Self::insert`].
    ///
    /// # Errors
    /// [`InsertError`].
    #[cfg(any(test, target_os = "none"))]
    pub(crate) fn place(
        &mut self,
        kind: RegionKind,
        range: Range<u64>,
        spare: &mut Option<Block>,
    ) -> Result<(), InsertError> {
        let at = self.list.partition_point(|region| region.reserved_end <= range.start);
        if self.list.get(at).is_some_and(|next| next.range.start < range.end) {
            return Err(InsertError::NoAddresses);
        }
        self.list.insert(at, Region::new(kind, range, FrameCount::ZERO), spare)
    }

    /// Moves the end of the region that begins at `start` down, and returns the range behind the
    /// new end. Those addresses stay reserved until the caller releases them: a new region among
    /// pages that are still being unmapped would find them mapped, and then lose them.
    pub(crate) fn shorten(&mut self, start: u64, end: u64) -> Option<Range<u64>> {
        let at = self.position(start)?;
        let region = self.list.get_mut(at).filter(|region| region.range.end > end)?;
        let cut = end..region.range.end;
        region.range.end = end;
        Some(cut)
    }

    /// Removes the region that begins at `start`; `free` gets a frame that the list does not need
    /// any more.
    pub(crate) fn remove(&mut self, start: u64, free: impl FnMut(Block)) -> Option<Region> {
        let at = self.position(start)?;
        self.list.remove(at, free)
    }

    /// Returns the position of the region that begins at `start`.
    fn position(&self, start: u64) -> Option<Position> {
        let at = self.list.partition_point(|region| region.range.start < start);
        self.list.get(at).is_some_and(|region| region.range.start == start).then_some(at)
    }

    /// Forgets all regions.
    #[cfg(test)]
    pub(crate) fn clear(&mut self, free: impl FnMut(Block)) {
        self.list.clear(free);
    }
}

#[cfg(test)]
mod tests {
    use super::{RegionKind, Regions};
    use crate::mm::address_space::region_list::InsertError;
    use crate::mm::block::Block;
    use crate::mm::reclaim::scan::balance::PageKind;
    use crate::mm::testing::host_frame;
    use aerostat_abi::units::{FrameCount, HUGE_BYTES};
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    const BASE: u64 = 0x4100_0000_0000;

    fn lose(frame: Block) {
        let _ = frame.into_number();
    }

    fn insert(regions: &mut Regions, bytes: u64) -> Option<u64> {
        let within = BASE..BASE + (1 << 40);
        let mut frame = None;
        let mut result = regions.insert(RegionKind::Anonymous, within.clone(), bytes, FrameCount(0), &mut frame);
        if result == Err(InsertError::NoFrame) {
            frame = Some(host_frame());
            result = regions.insert(RegionKind::Anonymous, within, bytes, FrameCount(0), &mut frame);
        }
        assert!(frame.is_none(), "it was asked for");
        result.ok()
    }

    #[test]
    fn the_hand_passes_over_what_does_not_come_and_go() {
        let mut regions = Regions::new();
        assert_eq!(regions.place(RegionKind::Stack, BASE..BASE + 3 * HUGE_BYTES, &mut None), Err(InsertError::NoFrame));
        assert_eq!(regions.place(RegionKind::Stack, BASE..BASE + 3 * HUGE_BYTES, &mut Some(host_frame())), Ok(()));
        let taken = regions.place(RegionKind::Pinned, BASE + HUGE_BYTES..BASE + 4 * HUGE_BYTES, &mut None);
        assert_eq!(taken, Err(InsertError::NoAddresses));
        let start = insert(&mut regions, HUGE_BYTES).unwrap();
        assert!(start > BASE + 3 * HUGE_BYTES);
        assert_eq!(regions.next_slot(PageKind::Anonymous, 0), Some((start, start + HUGE_BYTES)));
        assert_eq!(regions.next_slot(PageKind::Anonymous, start + HUGE_BYTES), None);
    }

    #[test]
    fn a_shortened_range_stays_reserved_until_it_is_released() {
        let mut regions = Regions::new();
        let insert = |regions: &mut Regions| insert(regions, HUGE_BYTES).unwrap();
        let first = insert(&mut regions);
        assert_eq!(regions.shorten(first + 4096, first), None, "no region begins there");
        assert_eq!(regions.shorten(first, first), Some(first..first + HUGE_BYTES));
        assert_eq!(regions.shorten(first, first), None, "only one can end it");
        assert_eq!(regions.find(first), None);
        let second = insert(&mut regions);
        assert_eq!(second, first + 2 * HUGE_BYTES);
        assert!(regions.remove(first, lose).is_some());
        assert_eq!(insert(&mut regions), first);
    }

    #[test]
    fn there_may_be_fifty_thousand_and_what_holds_them_goes_with_them() {
        const COUNT: usize = 50_000;
        let mut regions = Regions::new();
        let mut starts: Vec<u64> = (0..COUNT).map(|_| insert(&mut regions, HUGE_BYTES).unwrap()).collect();
        assert!(starts.iter().all(|&start| regions.find(start + 5).is_some_and(|region| region.range.start == start)));
        let mut frames = 0;
        let mut free = |frame| {
            frames += 1;
            lose(frame);
        };
        for place in (0..COUNT).step_by(2).rev() {
            assert!(regions.remove(starts.swap_remove(place), &mut free).is_some());
        }
        assert!(starts.iter().all(|&start| regions.find(start).is_some()));
        for start in starts {
            assert!(regions.remove(start, &mut free).is_some());
        }
        assert!(frames > COUNT / 64 && frames < COUNT / 16);
    }

    proptest! {
        #[test]
        fn regions_never_meet(steps in vec((0_u64..8, 1_u64..5_000_000), 1..400)) {
            let mut regions = Regions::new();
            let mut starts = Vec::new();
            for (choice, bytes) in steps {
                if choice < 3 && !starts.is_empty() {
                    let start = starts.swap_remove(usize::try_from(bytes).unwrap() % starts.len());
                    prop_assert!(regions.remove(start, lose).is_some());
                } else {
                    starts.extend(insert(&mut regions, bytes.next_multiple_of(4096)));
                }
                let list: Vec<_> = regions.list.iter_from(regions.list.partition_point(|_| false)).collect();
                for pair in list.windows(2) {
                    prop_assert!(pair[0].range.end.next_multiple_of(HUGE_BYTES) + HUGE_BYTES <= pair[1].range.start);
                }
                for &start in &starts {
                    prop_assert!(regions.find(start).is_some_and(|region| region.range.start == start));
                }
            }
        }
    }
}
