//! The slot map: which slots of the swap disk are in use, and for what. Pure.
//!
//! A *slot* is 4 KiB of the disk. It holds one uncompressed page, or it is the first of up to three
//! slots that hold a zspage of the compressed pool with up to 15 pages. Slots are free again when
//! the last of their pages is dropped. They are handed out in runs, so that frames that are evicted
//! together are written in one transfer. A run lies within one *cluster* of 64 slots: in a free
//! cluster if there is one, otherwise in a partly used one.
//!
//! A zspage on disk that has lost pages is *sparse* while it has fewer pages than slots. It keeps
//! its slots until it is read. Each slot counts as swap headroom, so sparse zspages are read and
//! packed before a page finds no slot ([`SlotMap::first_sparse`]).
//!
//! A reader releases the lock while the disk works, and has to know afterwards whether its slot
//! still holds what it has asked for: so each use of a slot has its own [`SlotVersion`].

use aerostat_abi::units::{FRAME_BYTES, to_usize};

use crate::mm::bit_tree::{self, BitTree};
use crate::mm::bump::BumpAllocator;

/// Slots in a cluster, and so the longest run.
pub(crate) const CLUSTER: usize = 64;
/// The largest swap disk: 64 GiB.
const MAX_SLOTS: usize = bit_tree::MAX_LENGTH * CLUSTER;
/// Stand in the place of a zspage's pages: the slot holds one uncompressed page, or belongs to the
/// zspage that begins before it.
const WHOLE_PAGE: u16 = 1 << 15;
const REST_OF_ZSPAGE: u16 = 1 << 15 | 1;
/// Bits of a version. Above them is the number of the zspage's slots behind the first.
const VERSION_BITS: u32 = 14;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotNumber(pub(crate) u32);

impl SlotNumber {
    /// Returns the slot `distance` behind this one.
    pub(crate) fn plus(self, distance: usize) -> Self {
        Self(self.0 + u32::try_from(distance).expect("runs are short"))
    }

    /// Returns how far this slot lies behind `first`; `None` when it lies before.
    pub(crate) fn distance_from(self, first: Self) -> Option<usize> {
        self.0.checked_sub(first.0).map(|distance| to_usize(u64::from(distance)))
    }

    /// Returns the slot's position on the disk in bytes.
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

/// What begins in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotContents {
    /// An uncompressed page.
    Page,
    /// A zspage: the indexes of its pages that have not been dropped, a bit each, and how many
    /// slots it takes.
    Zspage { pages: u16, slots: usize },
}

/// The use of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// [`WHOLE_PAGE`], [`REST_OF_ZSPAGE`], or the pages of a zspage, a bit each; zero while the
    /// slot holds nothing.
    pages: u16,
    /// The zspage's slots behind this one.
    rest: u16,
    version: u16,
}

impl Use {
    /// Returns whether a zspage with fewer pages than slots begins here.
    fn is_sparse(self) -> bool {
        self.pages != 0 && self.pages & WHOLE_PAGE == 0 && self.pages.count_ones() <= u32::from(self.rest)
    }
}

/// The slots of a disk.
#[derive(Debug)]
pub(crate) struct SlotMap {
    /// Clusters of which all slots are free, and clusters of which some are.
    whole: BitTree,
    partial: BitTree,
    /// Clusters in which a zspage may be sparse: every cluster with one, and some that had one.
    sparse: BitTree,
    /// Free slots of each cluster, a bit each.
    free: &'static mut [u64],
    uses: &'static mut [u64],
    length: usize,
    used: usize,
    retired: usize,
}

impl SlotMap {
    /// Returns how many of a disk's slots are used: whole clusters, up to 64 GiB.
    pub(crate) fn usable(slots: u64) -> usize {
        to_usize(slots).min(MAX_SLOTS) / CLUSTER * CLUSTER
    }

    /// Returns how many zeroed words the map of `slots` slots needs.
    pub(crate) const fn words(slots: usize) -> usize {
        let clusters = slots / CLUSTER;
        3 * BitTree::words(clusters) + clusters + slots.div_ceil(2)
    }

    /// Creates a map of `slots` free slots, a multiple of [`CLUSTER`].
    pub(crate) fn new(slots: usize, bump: &mut BumpAllocator) -> Self {
        let clusters = slots / CLUSTER;
        let mut map = Self {
            whole: BitTree::new(clusters, bump),
            partial: BitTree::new(clusters, bump),
            sparse: BitTree::new(clusters, bump),
            free: bump.take(clusters),
            uses: bump.take(slots.div_ceil(2)),
            length: slots,
            used: 0,
            retired: 0,
        };
        map.whole.fill();
        map.free.fill(u64::MAX);
        map
    }

    /// Returns the number of slots that are not retired.
    pub(crate) fn capacity(&self) -> usize {
        self.length - self.retired
    }

    /// Returns the number of slots in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Returns the number of free slots.
    pub(crate) fn free(&self) -> usize {
        self.capacity() - self.used
    }

    /// Takes a run of free slots: at least `least`, and up to `most`.
    pub(crate) fn take_run(&mut self, least: usize, most: usize) -> Option<(SlotNumber, usize)> {
        let cluster = self.whole.first().or_else(|| self.partial_cluster(least))?;
        let free = self.free[cluster];
        let (first, length) = find_run(free, least)?;
        let length = length.min(most);
        let run = if length == CLUSTER { u64::MAX } else { ((1 << length) - 1) << first };
        self.set_free(cluster, free & !run);
        self.used += length;
        Some((SlotNumber(u32::try_from(cluster * CLUSTER + first).ok()?), length))
    }

    /// Returns whether there is a run of at least `least` free slots.
    pub(crate) fn has_run(&self, least: usize) -> bool {
        self.whole.first().or_else(|| self.partial_cluster(least)).is_some()
    }

    /// Returns the first partly used cluster with a run of at least `least` free slots. Looks at
    /// one word for each cluster, and at one alone where single slots are enough.
    fn partial_cluster(&self, least: usize) -> Option<usize> {
        let first = self.partial.first()?;
        (first..self.free.len()).find(|cluster| find_run(self.free[*cluster], least).is_some())
    }

    /// Frees a slot that was taken and not used.
    pub(crate) fn free_slot(&mut self, slot: SlotNumber) {
        let cluster = slot.index() / CLUSTER;
        let free = self.free[cluster];
        debug_assert!(free & bit(slot) == 0, "{slot:?} was free already");
        self.set_free(cluster, free | bit(slot));
        self.used -= 1;
    }

    /// Retires a taken slot that can't be written: it is never used again.
    pub(crate) fn retire(&mut self, slot: SlotNumber) {
        debug_assert!(self.free[slot.index() / CLUSTER] & bit(slot) == 0);
        self.retired += 1;
        self.used -= 1;
    }

    /// Retires all free slots. Returns how many there were.
    pub(crate) fn retire_free(&mut self) -> usize {
        let free = self.free();
        (0..self.free.len()).for_each(|cluster| self.set_free(cluster, 0));
        self.retired += free;
        free
    }

    /// Records what was written to a taken slot, or to it and the slots behind it.
    pub(crate) fn record(&mut self, slot: SlotNumber, contents: SlotContents) {
        match contents {
            SlotContents::Page => self.begin_use(slot, WHOLE_PAGE, 0),
            SlotContents::Zspage { pages, slots } => {
                debug_assert!(pages != 0 && pages & WHOLE_PAGE == 0);
                self.begin_use(slot, pages, slots - 1);
                (1..slots).for_each(|place| self.begin_use(slot.plus(place), REST_OF_ZSPAGE, 0));
            }
        }
    }

    fn begin_use(&mut self, slot: SlotNumber, pages: u16, rest: usize) {
        let version = (self.use_of(slot).version + 1) & ((1 << VERSION_BITS) - 1);
        let rest = u16::try_from(rest).expect("a zspage has few slots");
        self.set_use(slot, Use { pages, rest, version });
    }

    /// Returns what begins in a slot, and the version of this use.
    pub(crate) fn contents(&self, slot: SlotNumber) -> Option<(SlotContents, SlotVersion)> {
        if slot.index() >= self.length {
            return None;
        }
        let Use { pages, rest, version } = self.use_of(slot);
        let contents = match pages {
            0 | REST_OF_ZSPAGE => return None,
            WHOLE_PAGE => SlotContents::Page,
            pages => SlotContents::Zspage { pages, slots: usize::from(rest) + 1 },
        };
        Some((contents, SlotVersion(version)))
    }

    /// Drops the uncompressed page in a slot, and frees the slot.
    pub(crate) fn drop_page(&mut self, slot: SlotNumber) {
        debug_assert_eq!(self.use_of(slot).pages, WHOLE_PAGE);
        self.clear(slot);
    }

    /// Drops one page of the zspage that begins in a slot, and frees its slots with the last page.
    pub(crate) fn drop_page_of_zspage(&mut self, slot: SlotNumber, index: usize) {
        let Use { pages, rest, version } = self.use_of(slot);
        debug_assert!(pages & WHOLE_PAGE == 0 && pages & 1 << index != 0, "{slot:?} holds no page {index}");
        let pages = pages & !(1 << index);
        if pages == 0 {
            self.clear(slot);
        } else {
            self.set_use(slot, Use { pages, rest, version });
        }
    }

    /// Drops all that begins in a slot, and frees its slots.
    pub(crate) fn clear(&mut self, slot: SlotNumber) {
        let slots = usize::from(self.use_of(slot).rest) + 1;
        for slot in (0..slots).map(|place| slot.plus(place)) {
            let Use { version, .. } = self.use_of(slot);
            self.set_use(slot, Use { pages: 0, rest: 0, version });
            self.free_slot(slot);
        }
    }

    /// Returns the first slot of a sparse zspage.
    pub(crate) fn first_sparse(&mut self) -> Option<SlotNumber> {
        while let Some(cluster) = self.sparse.first() {
            let first = SlotNumber(u32::try_from(cluster * CLUSTER).ok()?);
            let sparse = (0..CLUSTER).map(|place| first.plus(place)).find(|slot| self.use_of(*slot).is_sparse());
            if sparse.is_some() {
                return sparse;
            }
            self.sparse.remove(cluster);
        }
        None
    }

    /// Does not return the sparse zspages of a slot's cluster any more, until another of its
    /// zspages loses pages: the zspage in the slot can't be read.
    pub(crate) fn skip_sparse(&mut self, slot: SlotNumber) {
        self.sparse.remove(slot.index() / CLUSTER);
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

    /// Returns the use of a slot. Two uses share a word.
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
        if new.is_sparse() {
            self.sparse.insert(slot.index() / CLUSTER);
        }
        let shift = 32 * (slot.index() % 2);
        let word = &mut self.uses[slot.index() / 2];
        let value = u64::from(new.pages) | u64::from(new.rest << VERSION_BITS | new.version) << 16;
        *word = *word & !(0xffff_ffff << shift) | value << shift;
    }
}

/// Returns the first run of at least `least` set bits: where it begins, and how long it is.
fn find_run(word: u64, least: usize) -> Option<(usize, usize)> {
    let mut first = 0;
    while first < u64::BITS && word >> first != 0 {
        first += (word >> first).trailing_zeros();
        let length = (word >> first).trailing_ones();
        if to_usize(u64::from(length)) >= least {
            return Some((to_usize(u64::from(first)), to_usize(u64::from(length))));
        }
        first += length;
    }
    None
}

fn bit(slot: SlotNumber) -> u64 {
    1 << (slot.index() % CLUSTER)
}

#[cfg(test)]
mod tests;
