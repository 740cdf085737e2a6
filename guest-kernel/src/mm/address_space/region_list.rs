//! A sorted list of regions, stored in frames of its own, so that memory alone limits its length.
//!
//! A *leaf* is a frame with up to [`CAPACITY`] regions; the frame numbers of the leaves, eight
//! bytes each, are in the kernel heap. A full leaf is split, an empty one is freed, and two that
//! are half full together are merged. So finding a region takes O(log n) steps, and adding or
//! removing one moves the regions of one leaf and the numbers of the leaves.
//!
//! Frames come from the caller, which must not wait for one with the lock held: see
//! [`RegionList::insert`].
#![allow(unsafe_code, reason = "leaves are raw frames")]

use core::array;

use aerostat_abi::units::{FRAME_SIZE, FrameNumber, to_usize};
use allocator_api2::vec::Vec;

use super::Region;
use crate::mm::block::{Block, BlockSize, Contents};
use crate::mm::kernel_heap::KernelHeap;

/// Regions in a leaf.
const CAPACITY: usize = 56;

/// The contents of a leaf's frame: the first `length` entries are in use and sorted.
struct LeafPage {
    length: usize,
    regions: [Option<Region>; CAPACITY],
}

const _: () = assert!(size_of::<LeafPage>() <= FRAME_SIZE && align_of::<LeafPage>() <= FRAME_SIZE);

/// An owned leaf. No other code uses its frame.
#[derive(Debug)]
struct Leaf(FrameNumber);

impl Leaf {
    fn new(frame: Block) -> Self {
        debug_assert_eq!(frame.size(), BlockSize::Frame);
        let leaf = Self(frame.into_number());
        let page = LeafPage { length: 0, regions: array::from_fn(|_| None) };
        // SAFETY: the frame was owned by the caller, the identity map reaches it, and a frame is
        // large and aligned enough.
        unsafe { leaf.pointer().write(page) };
        leaf
    }

    fn pointer(&self) -> *mut LeafPage {
        core::ptr::with_exposed_provenance_mut(to_usize(self.0.address()))
    }

    fn page(&self) -> &LeafPage {
        // SAFETY: written by `new`; the frame belongs to this leaf alone, so the reference follows
        // the borrow of the leaf.
        unsafe { &*self.pointer() }
    }

    fn page_mut(&mut self) -> &mut LeafPage {
        // SAFETY: as in `page`; the leaf is mutably borrowed.
        unsafe { &mut *self.pointer() }
    }

    fn into_frame(self) -> Block {
        // SAFETY: the leaf owned the frame, and is gone.
        unsafe { Block::from_raw(self.0, BlockSize::Frame, Contents::Unknown) }
    }
}

impl LeafPage {
    fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions[..self.length].iter().flatten()
    }

    fn last(&self) -> Option<&Region> {
        self.regions[self.length.checked_sub(1)?].as_ref()
    }

    fn partition_point(&self, is_before: impl Fn(&Region) -> bool) -> usize {
        self.regions[..self.length].partition_point(|region| region.as_ref().is_some_and(&is_before))
    }

    fn is_full(&self) -> bool {
        self.length == CAPACITY
    }

    fn insert(&mut self, index: usize, region: Region) {
        self.regions[index..=self.length].rotate_right(1);
        self.regions[index] = Some(region);
        self.length += 1;
    }

    fn remove(&mut self, index: usize) -> Option<Region> {
        let region = self.regions[index].take();
        self.regions[index..self.length].rotate_left(1);
        self.length -= 1;
        region
    }

    /// Moves the regions from `index` on to the end of another leaf, which has room for them.
    fn move_tail(&mut self, index: usize, to: &mut Self) {
        for region in &mut self.regions[index..self.length] {
            to.regions[to.length] = region.take();
            to.length += 1;
        }
        self.length = index;
    }
}

/// A place in the list, of a region that is there or could be inserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    leaf: usize,
    index: usize,
}

/// Why a region was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// No gap is large enough for it.
    NoAddresses,
    /// The list needs another frame, and the caller has supplied none.
    NoFrame,
    /// The kernel heap is full.
    HeapFull,
}

/// A sorted list of regions.
#[derive(Debug)]
pub(super) struct RegionList {
    /// The leaves, none of them empty.
    leaves: Vec<Leaf, KernelHeap>,
}

impl RegionList {
    pub(super) const fn new() -> Self {
        Self { leaves: Vec::new_in(KernelHeap) }
    }

    /// Returns the position of the first region for which `is_before` is false; it is true for all
    /// regions before that one.
    pub(super) fn partition_point(&self, is_before: impl Fn(&Region) -> bool) -> Position {
        let leaf = self.leaves.partition_point(|leaf| leaf.page().last().is_some_and(&is_before));
        let index = self.leaves.get(leaf).map_or(0, |leaf| leaf.page().partition_point(is_before));
        Position { leaf, index }
    }

    pub(super) fn get(&self, at: Position) -> Option<&Region> {
        self.leaves.get(at.leaf)?.page().regions.get(at.index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: Position) -> Option<&mut Region> {
        self.leaves.get_mut(at.leaf)?.page_mut().regions.get_mut(at.index)?.as_mut()
    }

    /// Returns the regions from a position on.
    pub(super) fn iter_from(&self, at: Position) -> impl Iterator<Item = &Region> {
        self.leaves.iter().skip(at.leaf).flat_map(|leaf| leaf.page().regions()).skip(at.index)
    }

    /// Inserts a region at a position. `spare` is used when the list needs another leaf.
    ///
    /// # Errors
    /// Returns [`InsertError`], and has changed nothing.
    pub(super) fn insert(
        &mut self,
        at: Position,
        region: Region,
        spare: &mut Option<Block>,
    ) -> Result<(), InsertError> {
        let at = self.behind_leaf_before(at);
        match self.leaves.get_mut(at.leaf) {
            Some(leaf) if !leaf.page().is_full() => leaf.page_mut().insert(at.index, region),
            _ => self.insert_with(at, region, spare)?,
        }
        Ok(())
    }

    /// Prefers the end of a leaf to the beginning of the next, which is the same position: so a
    /// list that only grows at its end fills its leaves.
    fn behind_leaf_before(&self, at: Position) -> Position {
        match at.leaf.checked_sub(1) {
            Some(leaf) if at.index == 0 => Position { leaf, index: self.leaves[leaf].page().length },
            _ => at,
        }
    }

    /// Adds a leaf behind the full one at the position. The new leaf gets the region, or half of
    /// the full leaf's regions.
    fn insert_with(&mut self, at: Position, region: Region, spare: &mut Option<Block>) -> Result<(), InsertError> {
        self.leaves.try_reserve(1).map_err(|_| InsertError::HeapFull)?;
        let mut added = Leaf::new(spare.take().ok_or(InsertError::NoFrame)?);
        let page = added.page_mut();
        match self.leaves.get_mut(at.leaf).map(Leaf::page_mut) {
            Some(full) if at.index < CAPACITY => {
                full.move_tail(CAPACITY / 2, page);
                match at.index.checked_sub(CAPACITY / 2) {
                    Some(index) => page.insert(index, region),
                    None => full.insert(at.index, region),
                }
            }
            _ => page.insert(0, region),
        }
        let index = self.leaves.len().min(at.leaf + 1);
        self.leaves.insert(index, added);
        Ok(())
    }

    /// Removes a region; `free` gets the frame of a leaf that is not needed any more.
    pub(super) fn remove(&mut self, at: Position, mut free: impl FnMut(Block)) -> Option<Region> {
        self.get(at)?;
        let region = self.leaves[at.leaf].page_mut().remove(at.index);
        if self.leaves[at.leaf].page().length == 0 {
            free(self.leaves.remove(at.leaf).into_frame());
        } else if let [leaf, next, ..] = &mut self.leaves[at.leaf..]
            && leaf.page().length + next.page().length <= CAPACITY / 2
        {
            next.page_mut().move_tail(0, leaf.page_mut());
            free(self.leaves.remove(at.leaf + 1).into_frame());
        }
        region
    }

    /// Removes all regions.
    #[cfg(test)]
    pub(super) fn clear(&mut self, free: impl FnMut(Block)) {
        self.leaves.drain(..).map(Leaf::into_frame).for_each(free);
    }
}
