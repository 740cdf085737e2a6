//! Which slots of the swap disk are in use, and for what: pure bookkeeping.
//!
//! A *slot* is a frame's worth of disk. It holds one page as it was, or, with one or two slots
//! behind it, a group of the compressed compressed pool with up to 15 pages in it, known by its
//! first slot; slots are free again when the last of their pages is dropped. Slots are handed out
//! in runs, so that what is written together can be written at once, and a run lies within one
//! *cluster* of 64: wholly free clusters first, then what is left of others.
//!
//! A reader gives up the lock while the disk works, and must know afterwards whether its slot still
//! holds what it asked for: every use of a slot has a [`SlotVersion`] of its own.

use aerostat_abi::units::{FRAME_BYTES, to_usize};

use crate::mm::bit_tree::{self, BitTree};
use crate::mm::bump::BumpAllocator;

/// Slots in a cluster, and so the longest run.
pub(crate) const CLUSTER: usize = 64;
/// The largest swap disk: 64 GiB.
const MAX_SLOTS: usize = bit_tree::MAX_LENGTH * CLUSTER;
/// In place of the pages of a slot: the slot is one page as it was, or belongs to the group that
/// begins before it.
const WHOLE_PAGE: u16 = 1 << 15;
const REST_OF_ZSPAGE: u16 = 1 << 15 | 1;
/// Bits of a version; above them is the number of the group's slots behind the first.
const VERSION_BITS: u32 = 14;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotNumber(pub(crate) u32);

impl SlotNumber {
    /// The slot `distance` behind this one.
    pub(crate) fn plus(self, distance: usize) -> Self {
        Self(self.0 + u32::try_from(distance).expect("runs are short"))
    }

    /// How far behind `first` it lies, unless it lies before.
    pub(crate) fn distance_from(self, first: Self) -> Option<usize> {
        self.0.checked_sub(first.0).map(|distance| to_usize(u64::from(distance)))
    }

    /// Where it begins on the disk, in bytes.
    pub(crate) fn position(self) -> u64 {
        u64::from(self.0) * FRAME_BYTES
    }

    fn index(self) -> usize {
        to_usize(u64::from(self.0))
    }
}

/// Distinguishes one use of a slot from the next, up to 16,384 uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotVersion(u16);

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A page as it was.
    Page,
    /// The first frame of a group of the compressed pool: which of its pages are still wanted, a
    /// bit each, and how many slots it takes.
    Zspage { pages: u16, slots: usize },
}

/// One slot's use.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// [`WHOLE_PAGE`], [`REST_OF_ZSPAGE`], or the pages of a group, a bit each; zero while nothing
    /// is kept here.
    pages: u16,
    /// The group's slots behind this one.
    rest: u16,
    version: u16,
}

/// All slots of a disk.
#[derive(Debug)]
pub(crate) struct SlotMap {
    /// Clusters of which every slot is free, and clusters of which some are.
    whole: BitTree,
    partial: BitTree,
    /// Free slots of each cluster, a bit each.
    free: &'static mut [u64],
    uses: &'static mut [u64],
    length: usize,
    used: usize,
    lost: usize,
}

impl SlotMap {
    /// Slots of a disk of that size that are used at all.
    pub(crate) fn usable(slots: u64) -> usize {
        to_usize(slots).min(MAX_SLOTS) / CLUSTER * CLUSTER
    }

    /// Zeroed words that the map of `slots` slots needs.
    pub(crate) const fn words(slots: usize) -> usize {
        let clusters = slots / CLUSTER;
        2 * BitTree::words(clusters) + clusters + slots.div_ceil(2)
    }

    /// A map of `slots` free slots, a multiple of [`CLUSTER`].
    pub(crate) fn new(slots: usize, bump: &mut BumpAllocator) -> Self {
        let clusters = slots / CLUSTER;
        let mut map = Self {
            whole: BitTree::new(clusters, bump),
            partial: BitTree::new(clusters, bump),
            free: bump.take(clusters),
            uses: bump.take(slots.div_ceil(2)),
            length: slots,
            used: 0,
            lost: 0,
        };
        map.whole.fill();
        map.free.fill(u64::MAX);
        map
    }

    /// Slots that hold something or can.
    pub(crate) fn capacity(&self) -> usize {
        self.length - self.lost
    }

    /// Slots taken.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Slots that can be taken.
    pub(crate) fn free(&self) -> usize {
        self.capacity() - self.used
    }

    /// Takes a run of at most `most` free slots, as long as there is one at hand.
    pub(crate) fn take_run(&mut self, most: usize) -> Option<(SlotNumber, usize)> {
        let cluster = self.whole.first().or_else(|| self.partial.first())?;
        let free = self.free[cluster];
        let first = free.trailing_zeros();
        let length = to_usize(u64::from((free >> first).trailing_ones())).min(most);
        let run = if length == CLUSTER { u64::MAX } else { ((1 << length) - 1) << first };
        self.set_free(cluster, free & !run);
        self.used += length;
        let first = cluster * CLUSTER + to_usize(u64::from(first));
        Some((SlotNumber(u32::try_from(first).ok()?), length))
    }

    /// Gives back a slot that was taken and not used.
    pub(crate) fn free_slot(&mut self, slot: SlotNumber) {
        let cluster = slot.index() / CLUSTER;
        let free = self.free[cluster];
        debug_assert!(free & bit(slot) == 0, "{slot:?} was free already");
        self.set_free(cluster, free | bit(slot));
        self.used -= 1;
    }

    /// Takes a slot that can't be written out of use for good.
    pub(crate) fn lose(&mut self, slot: SlotNumber) {
        debug_assert!(self.free[slot.index() / CLUSTER] & bit(slot) == 0);
        self.lost += 1;
        self.used -= 1;
    }

    /// Takes all free slots out of use for good; returns how many there were.
    pub(crate) fn lose_free(&mut self) -> usize {
        let free = self.free();
        (0..self.free.len()).for_each(|cluster| self.set_free(cluster, 0));
        self.lost += free;
        free
    }

    /// Notes what was written to a taken slot, or to it and those behind it.
    pub(crate) fn keep(&mut self, slot: SlotNumber, kept: Kept) {
        match kept {
            Kept::Page => self.begin_use(slot, WHOLE_PAGE, 0),
            Kept::Zspage { pages, slots } => {
                debug_assert!(pages != 0 && pages & WHOLE_PAGE == 0);
                self.begin_use(slot, pages, slots - 1);
                (1..slots).for_each(|place| self.begin_use(slot.plus(place), REST_OF_ZSPAGE, 0));
            }
        }
    }

    fn begin_use(&mut self, slot: SlotNumber, pages: u16, rest: usize) {
        let version = (self.use_of(slot).version + 1) & ((1 << VERSION_BITS) - 1);
        let rest = u16::try_from(rest).expect("groups are small");
        self.set_use(slot, Use { pages, rest, version });
    }

    /// What begins in a slot, and which use of it this is.
    pub(crate) fn kept(&self, slot: SlotNumber) -> Option<(Kept, SlotVersion)> {
        if slot.index() >= self.length {
            return None;
        }
        let Use { pages, rest, version } = self.use_of(slot);
        let kept = match pages {
            0 | REST_OF_ZSPAGE => return None,
            WHOLE_PAGE => Kept::Page,
            pages => Kept::Zspage { pages, slots: usize::from(rest) + 1 },
        };
        Some((kept, SlotVersion(version)))
    }

    /// Forgets the page that a slot holds.
    pub(crate) fn drop_page(&mut self, slot: SlotNumber) {
        debug_assert_eq!(self.use_of(slot).pages, WHOLE_PAGE);
        self.empty(slot);
    }

    /// Forgets one page of the group that begins in a slot.
    pub(crate) fn drop_page_of_zspage(&mut self, slot: SlotNumber, index: usize) {
        let Use { pages, rest, version } = self.use_of(slot);
        debug_assert!(pages & WHOLE_PAGE == 0 && pages & 1 << index != 0, "{slot:?} holds no page {index}");
        let pages = pages & !(1 << index);
        if pages == 0 {
            self.empty(slot);
        } else {
            self.set_use(slot, Use { pages, rest, version });
        }
    }

    /// Forgets all of what begins in a slot.
    pub(crate) fn empty(&mut self, slot: SlotNumber) {
        let slots = usize::from(self.use_of(slot).rest) + 1;
        for slot in (0..slots).map(|place| slot.plus(place)) {
            let Use { version, .. } = self.use_of(slot);
            self.set_use(slot, Use { pages: 0, rest: 0, version });
            self.free_slot(slot);
        }
    }

    fn set_free(&mut self, cluster: usize, free: u64) {
        self.free[cluster] = free;
        for (tree, belongs) in [(&mut self.whole, free == u64::MAX), (&mut self.partial, free != 0 && free != u64::MAX)]
        {
            if belongs {
                tree.insert(cluster);
            } else {
                tree.remove(cluster);
            }
        }
    }

    /// Two uses share a word.
    fn use_of(&self, slot: SlotNumber) -> Use {
        let [a, b, c, d, e, f, g, h] = self.uses[slot.index() / 2].to_le_bytes();
        let [a, b, c, d] = if slot.index().is_multiple_of(2) { [a, b, c, d] } else { [e, f, g, h] };
        let second = u16::from_le_bytes([c, d]);
        Use {
            pages: u16::from_le_bytes([a, b]),
            rest: second >> VERSION_BITS,
            version: second & ((1 << VERSION_BITS) - 1),
        }
    }

    fn set_use(&mut self, slot: SlotNumber, new: Use) {
        let shift = 32 * (slot.index() % 2);
        let word = &mut self.uses[slot.index() / 2];
        let value = u64::from(new.pages) | u64::from(new.rest << VERSION_BITS | new.version) << 16;
        *word = *word & !(0xffff_ffff << shift) | value << shift;
    }
}

fn bit(slot: SlotNumber) -> u64 {
    1 << (slot.index() % CLUSTER)
}

#[cfg(test)]
mod tests {
    use super::{CLUSTER, Kept, SlotMap, SlotNumber};
    use crate::mm::bump::BumpAllocator;
    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeMap;

    fn map(slots: usize) -> SlotMap {
        SlotMap::new(slots, &mut BumpAllocator::leaked(SlotMap::words(slots)))
    }

    #[test]
    fn runs_come_from_whole_clusters_and_end_at_their_borders() {
        let mut map = map(2 * CLUSTER);
        assert_eq!(map.take_run(40), Some((SlotNumber(0), 40)));
        assert_eq!(map.take_run(40), Some((SlotNumber(64), 40)));
        assert_eq!(map.take_run(40), Some((SlotNumber(40), 24)), "no cluster is whole");
        map.free_slot(SlotNumber(3));
        assert_eq!(map.take_run(40), Some((SlotNumber(3), 1)));
        assert_eq!(map.take_run(40), Some((SlotNumber(104), 24)));
        assert_eq!((map.take_run(1), map.used()), (None, 2 * CLUSTER));
    }

    #[test]
    fn slots_are_free_when_their_last_page_is_dropped() {
        let mut map = map(CLUSTER);
        let (slot, _) = map.take_run(3).unwrap();
        map.keep(slot, Kept::Zspage { pages: 0b101, slots: 3 });
        let (_, version) = map.kept(slot).unwrap();
        assert_eq!((map.kept(slot.plus(1)), map.kept(slot.plus(2))), (None, None));
        map.drop_page_of_zspage(slot, 0);
        assert_eq!((map.kept(slot), map.used()), (Some((Kept::Zspage { pages: 0b100, slots: 3 }, version)), 3));
        map.drop_page_of_zspage(slot, 2);
        assert_eq!((map.kept(slot), map.used()), (None, 0));
        assert_eq!(map.take_run(1), Some((slot, 1)));
        map.keep(slot, Kept::Page);
        assert!(map.kept(slot).is_some_and(|(kept, now)| kept == Kept::Page && now != version), "another use");
    }

    #[test]
    fn a_lost_slot_is_never_seen_again() {
        let mut map = map(CLUSTER);
        let (slot, _) = map.take_run(1).unwrap();
        map.lose(slot);
        assert_eq!((map.capacity(), map.used()), (CLUSTER - 1, 0));
        assert_eq!(map.take_run(CLUSTER), Some((SlotNumber(1), CLUSTER - 1)));
        assert_eq!(map.take_run(1), None);
    }

    #[test]
    fn slots_that_are_freed_later_outlive_a_full_disk() {
        let mut map = map(2 * CLUSTER);
        let (slot, _) = map.take_run(10).unwrap();
        assert_eq!(map.lose_free(), 2 * CLUSTER - 10);
        assert_eq!((map.capacity(), map.used(), map.take_run(1)), (10, 10, None));
        map.free_slot(slot);
        assert_eq!((map.take_run(CLUSTER), map.take_run(1)), (Some((slot, 1)), None));
    }

    proptest! {
        #[test]
        fn no_slot_is_handed_out_twice(clusters in 1_usize..8, steps in vec((0_u8..4, 1_usize..80, 0_usize..1000), 1..200)) {
            let mut map = map(clusters * CLUSTER);
            let mut taken = BTreeMap::new();
            for (action, most, choice) in steps {
                if action < 2 {
                    let Some((first, length)) = map.take_run(most) else {
                        prop_assert_eq!(map.used(), map.capacity());
                        continue;
                    };
                    prop_assert!(length >= 1 && length <= most);
                    let mut place = 0;
                    while place < length {
                        let slots = if choice % 2 == 0 { 1 } else { (choice % 3 + 1).min(length - place) };
                        let kept = if choice % 2 == 0 { Kept::Page } else { Kept::Zspage { pages: 0b11, slots } };
                        map.keep(first.plus(place), kept);
                        prop_assert_eq!(taken.insert(first.plus(place), (kept, slots)), None);
                        place += slots;
                    }
                } else if let Some((&slot, &(kept, _))) = taken.iter().nth(choice % taken.len().max(1)) {
                    prop_assert_eq!(map.kept(slot).map(|(kept, _)| kept), Some(kept));
                    match kept {
                        Kept::Page => map.drop_page(slot),
                        Kept::Zspage { .. } => (0..2).for_each(|index| map.drop_page_of_zspage(slot, index)),
                    }
                    taken.remove(&slot);
                }
                prop_assert_eq!(map.used(), taken.values().map(|(_, slots)| slots).sum::<usize>());
            }
        }
    }
}
