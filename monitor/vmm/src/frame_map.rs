//! Which frames are the guest's and which are ballooned. Every INFLATE and DEFLATE is decided here.
//! Pure.
//!
//! One bit a frame, set for *the guest's*, so the zeroed pages that a large allocation begins with
//! mean "ballooned". The map of a large guest with a small initial grant therefore costs only what
//! the grant touches: 32 KiB of resident memory per GiB that is the guest's. Words of frames that
//! never were the guest's are not even read, so the list of a large initial balloon costs nothing
//! for each frame. Counts per huge frame with bitmaps below them would be smaller still and were
//! left out: a 1 GiB block is 4,096 words here, about a microsecond.
//!
//! Invariants: `ballooned` is the number of clear bits; a protected frame is always the guest's; no
//! bit outside memory is set, and none from `unused` on.

use std::iter;
use std::ops::Range;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::units::{FRAME_BYTES, FrameCount, FrameNumber, MAX_ORDER, to_usize};

use super::layout::{LOW_END, MemoryLayout};

/// The state of every frame.
#[derive(Debug)]
pub(super) struct FrameMap {
    layout: MemoryLayout,
    guest: Vec<u64>,
    /// The index from which on all frames have been ballooned since the start.
    unused: usize,
    ballooned: FrameCount,
    image: Range<FrameNumber>,
    /// Frames of the words that the guest shares; none while it shares none.
    shared: Range<FrameNumber>,
}

impl FrameMap {
    /// Creates the map of a guest that starts with the first `initial` frames and with its image in
    /// `image`, which lies among them.
    pub(super) fn new(layout: MemoryLayout, initial: FrameCount, image: Range<FrameNumber>) -> Self {
        let total = layout.total();
        let initial = initial.min(total);
        let mut map = Self {
            layout,
            guest: vec![0; to_usize(total.0.div_ceil(u64::from(u64::BITS)))],
            unused: 0,
            ballooned: total.saturating_sub(initial),
            image,
            shared: FrameNumber(0)..FrameNumber(0),
        };
        if initial > FrameCount::ZERO {
            map.set(&(0..to_usize(initial.0)), Frames::Guest);
        }
        map
    }

    /// Returns the frames of the guest's image.
    pub(super) const fn image(&self) -> &Range<FrameNumber> {
        &self.image
    }

    /// Returns the number of frames in the balloon.
    pub(super) const fn balloon(&self) -> FrameCount {
        self.ballooned
    }

    /// Returns the number of frames that are the guest's.
    pub(super) const fn size(&self) -> FrameCount {
        self.layout.total().saturating_sub(self.ballooned)
    }

    /// Returns whether `frame` is memory and the guest's.
    pub(super) fn is_guests(&self, frame: FrameNumber) -> bool {
        self.layout.indexes(frame, FrameCount(1)).is_some_and(|block| self.all(&block, Frames::Guest))
    }

    /// Returns the state of all frames of a block; `None` where they differ.
    pub(super) fn state(&self, block: &Range<usize>) -> Option<Frames> {
        [Frames::Guest, Frames::Ballooned].into_iter().find(|&state| self.all(block, state))
    }

    /// Moves an entry's block into the balloon, or says why not. `batch_page` is the page that the
    /// entry was read from. The caller releases the block's memory, or calls [`Self::undo_inflate`]
    /// where that fails.
    pub(super) fn inflate(&mut self, entry: Entry, batch_page: FrameNumber) -> Result<Range<usize>, EntryStatus> {
        let block = self.block(entry)?;
        let low = FrameNumber(0)..FrameNumber::containing(LOW_END);
        let page = batch_page..FrameNumber(batch_page.0.saturating_add(1));
        let frames = entry.frame..FrameNumber(entry.frame.0.saturating_add(entry.count().0));
        if [&low, &page, &self.image, &self.shared].into_iter().any(|protected| overlap(protected, &frames)) {
            return Err(EntryStatus::Protected);
        }
        if !self.all(&block, Frames::Guest) {
            return Err(EntryStatus::AlreadyBallooned);
        }
        self.undo_deflate(&block);
        Ok(block)
    }

    /// Protects these frames from being ballooned, if they are the guest's; returns whether they
    /// are.
    pub(super) fn protect_shared(&mut self, frames: Range<FrameNumber>) -> bool {
        let count = FrameCount(frames.end.0.saturating_sub(frames.start.0));
        let is_guests = self.layout.indexes(frames.start, count).is_some_and(|block| self.all(&block, Frames::Guest));
        if is_guests {
            self.shared = frames;
        }
        is_guests
    }

    /// Returns the indexes of the frames of the words that the guest shares, if it shares some.
    pub(super) fn shared_indexes(&self) -> Option<Range<usize>> {
        let count = FrameCount(self.shared.end.0 - self.shared.start.0);
        self.layout.indexes(self.shared.start, count)
    }

    /// Ends the protection of the shared words' frames.
    pub(super) fn end_protection(&mut self) {
        self.shared = FrameNumber(0)..FrameNumber(0);
    }

    /// Moves an entry's block out of the balloon, or says why not. The guest's size stays within
    /// `target`. The caller makes sure that the guest can use the block, or calls
    /// [`Self::undo_deflate`] where that fails.
    pub(super) fn deflate(&mut self, entry: Entry, target: FrameCount) -> Result<Range<usize>, EntryStatus> {
        let block = self.block(entry)?;
        if !self.all(&block, Frames::Ballooned) {
            return Err(EntryStatus::NotBallooned);
        }
        if self.size().saturating_add(entry.count()) > target {
            return Err(EntryStatus::NotGranted);
        }
        self.undo_inflate(&block);
        Ok(block)
    }

    /// Undoes a [`Self::inflate`] of exactly this block.
    pub(super) fn undo_inflate(&mut self, block: &Range<usize>) {
        debug_assert!(self.all(block, Frames::Ballooned), "only ballooned frames are undone");
        self.set(block, Frames::Guest);
        self.ballooned = self.ballooned.saturating_sub(FrameCount(block.len() as u64));
    }

    /// Undoes a [`Self::deflate`] of exactly this block.
    pub(super) fn undo_deflate(&mut self, block: &Range<usize>) {
        debug_assert!(self.all(block, Frames::Guest), "only deflated frames are undone");
        self.set(block, Frames::Ballooned);
        self.ballooned = self.ballooned.saturating_add(FrameCount(block.len() as u64));
    }

    /// Returns what is ballooned, from `from` on: ascending blocks, each as large as its alignment
    /// and its neighbours allow.
    pub(super) fn ballooned_blocks(&self, from: FrameNumber) -> impl Iterator<Item = Entry> {
        self.layout.regions().flat_map(move |region| {
            let first = FrameNumber::containing(region.start.0);
            let start = to_usize(region.offset / FRAME_BYTES);
            let end = start + to_usize(region.bytes / FRAME_BYTES);
            let mut at = start.saturating_add(to_usize(from.0.saturating_sub(first.0))).min(end);
            iter::from_fn(move || {
                at = self.find(Frames::Ballooned, at..end);
                if at == end {
                    return None;
                }
                let frame = FrameNumber(first.0 + (at - start) as u64);
                let order = (0..=MAX_ORDER)
                    .take_while(|&order| frame.is_aligned(order) && at + (1 << order) <= end)
                    .take_while(|&order| self.all(&(at..at + (1 << order)), Frames::Ballooned))
                    .last()?;
                at += 1 << order;
                Some(Entry { frame, order, status: EntryStatus::Done })
            })
        })
    }

    /// Returns the first run of ballooned frames from index `from` on, at most `most` of them.
    pub(super) fn ballooned_run(&self, from: usize, most: usize) -> Option<Range<usize>> {
        let end = to_usize(self.layout.total().0);
        let start = self.find(Frames::Ballooned, from.min(end)..end);
        let run = start..self.find(Frames::Guest, start..end.min(start.saturating_add(most)));
        (!run.is_empty()).then_some(run)
    }

    /// Returns the runs of frames in `state` among these indexes, ascending.
    pub(super) fn runs(&self, state: Frames, within: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let other = match state {
            Frames::Guest => Frames::Ballooned,
            Frames::Ballooned => Frames::Guest,
        };
        let mut at = within.start;
        iter::from_fn(move || {
            let start = self.find(state, at..within.end);
            at = self.find(other, start..within.end);
            (start < at).then_some(start..at)
        })
    }

    /// Returns the first of these indexes whose frame is in `state`, or their end.
    fn find(&self, state: Frames, within: Range<usize>) -> usize {
        let used = within.start..within.end.min(self.unused);
        let unused = match state {
            Frames::Guest => within.end,
            Frames::Ballooned => within.end.min(within.start.max(self.unused)),
        };
        if used.is_empty() {
            return unused;
        }
        let found = words(&used).find_map(|(word, mask)| {
            let bits = self.bits(state, word) & mask;
            (bits != 0).then(|| word * u64::BITS as usize + bits.trailing_zeros() as usize)
        });
        found.unwrap_or(unused)
    }

    /// Counts the frames that are the guest's, one by one.
    #[cfg(any(test, feature = "harness"))]
    pub(super) fn recount(&self) -> FrameCount {
        FrameCount(self.guest.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    /// Returns the indexes of an entry's frames, or why the entry names no block of memory.
    fn block(&self, entry: Entry) -> Result<Range<usize>, EntryStatus> {
        if entry.order > MAX_ORDER {
            return Err(EntryStatus::BadOrder);
        }
        if !entry.frame.is_aligned(entry.order) {
            return Err(EntryStatus::Misaligned);
        }
        self.layout.indexes(entry.frame, entry.count()).ok_or(EntryStatus::OutOfRange)
    }

    fn all(&self, block: &Range<usize>, state: Frames) -> bool {
        let used = block.start..block.end.min(self.unused);
        (used.end == block.end || state == Frames::Ballooned)
            && (used.is_empty() || words(&used).all(|(word, mask)| self.bits(state, word) & mask == mask))
    }

    /// Returns a word with the bits set of those frames that are in `state`.
    fn bits(&self, state: Frames, word: usize) -> u64 {
        match state {
            Frames::Guest => self.guest[word],
            Frames::Ballooned => !self.guest[word],
        }
    }

    fn set(&mut self, block: &Range<usize>, state: Frames) {
        if state == Frames::Guest {
            self.unused = self.unused.max(block.end);
        }
        for (word, mask) in words(block) {
            match state {
                Frames::Guest => self.guest[word] |= mask,
                Frames::Ballooned => self.guest[word] &= !mask,
            }
        }
    }
}

/// The state of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// The guest's.
    Guest,
    /// In the balloon.
    Ballooned,
}

/// Returns the words that hold a block's bits, each with the mask of those bits. The block is not
/// empty.
fn words(block: &Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    const BITS: usize = u64::BITS as usize;
    let Range { start, end } = *block;
    (start / BITS..end.div_ceil(BITS)).map(move |word| {
        let first = word * BITS;
        let below = start.saturating_sub(first);
        let above = (first + BITS).saturating_sub(end);
        (word, (u64::MAX << below) & (u64::MAX >> above))
    })
}

fn overlap(a: &Range<FrameNumber>, b: &Range<FrameNumber>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::{FrameMap, overlap};
    use crate::layout::MemoryLayout;
    use aerostat_abi::batch::{Entry, EntryStatus};
    use aerostat_abi::units::{FrameCount, FrameNumber, to_usize};
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

    const PAGE: FrameNumber = FrameNumber(700);

    fn image() -> std::ops::Range<FrameNumber> {
        FrameNumber(512)..FrameNumber(600)
    }

    fn map(mib: u64, initial: u64) -> FrameMap {
        FrameMap::new(MemoryLayout::new(FrameCount::from_mib(mib)).unwrap(), FrameCount(initial), image())
    }

    fn entry(frame: u64, order: u8) -> Entry {
        Entry::pending(FrameNumber(frame), order)
    }

    /// The same rules, one frame at a time.
    struct Model {
        guest: Vec<bool>,
    }

    impl Model {
        fn check(&self, entry: Entry) -> Result<std::ops::Range<usize>, EntryStatus> {
            if entry.order > 18 {
                return Err(EntryStatus::BadOrder);
            }
            let count = 1_u64 << entry.order;
            if !entry.frame.0.is_multiple_of(count) {
                return Err(EntryStatus::Misaligned);
            }
            let (start, end) = (entry.frame.0, entry.frame.0 + count);
            if end > self.guest.len() as u64 {
                return Err(EntryStatus::OutOfRange);
            }
            Ok(to_usize(start)..to_usize(end))
        }

        fn inflate(&mut self, entry: Entry) -> Result<std::ops::Range<usize>, EntryStatus> {
            let block = self.check(entry)?;
            if block.clone().any(|frame| frame < 256 || (512..600).contains(&frame) || frame == 700) {
                return Err(EntryStatus::Protected);
            }
            if block.clone().any(|frame| !self.guest[frame]) {
                return Err(EntryStatus::AlreadyBallooned);
            }
            self.guest[block.clone()].fill(false);
            Ok(block)
        }

        fn deflate(&mut self, entry: Entry, target: usize) -> Result<std::ops::Range<usize>, EntryStatus> {
            let block = self.check(entry)?;
            if block.clone().any(|frame| self.guest[frame]) {
                return Err(EntryStatus::NotBallooned);
            }
            if self.size() + block.len() > target {
                return Err(EntryStatus::NotGranted);
            }
            self.guest[block.clone()].fill(true);
            Ok(block)
        }

        fn size(&self) -> usize {
            self.guest.iter().filter(|kept| **kept).count()
        }
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let order = prop_oneof![4 => 0_u8..=4, 2 => Just(9_u8), 1 => 10_u8..=20, 1 => any::<u8>()];
        (order, 0_u64..4200, any::<bool>()).prop_map(|(order, frame, align)| {
            let frame = if align && order < 12 { frame >> order << order } else { frame };
            entry(frame, order)
        })
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_a_list_of_frames(
            initial in 700_u64..=4096,
            calls in vec((entries(), any::<bool>(), 0_usize..5000), 1..200),
        ) {
            let mut map = map(16, initial);
            let mut model = Model { guest: (0..4096).map(|frame| frame < initial).collect() };
            for (entry, inflates, target) in calls {
                if inflates {
                    prop_assert_eq!(map.inflate(entry, PAGE), model.inflate(entry));
                } else {
                    prop_assert_eq!(map.deflate(entry, FrameCount(target as u64)), model.deflate(entry, target));
                }
                prop_assert_eq!(map.size().0, model.size() as u64);
                prop_assert_eq!(map.size().0 + map.balloon().0, 4096);
            }
            for frame in 0..4200 {
                let kept = model.guest.get(frame).copied().unwrap_or(false);
                prop_assert_eq!(map.is_guests(FrameNumber(frame as u64)), kept);
            }
        }

        #[test]
        fn an_undone_inflate_leaves_no_trace(entry in entries()) {
            let mut map = map(16, 4096);
            if let Ok(block) = map.inflate(entry, PAGE) {
                prop_assert!(map.inflate(entry, PAGE).is_err());
                map.undo_inflate(&block);
                prop_assert_eq!(map.balloon(), FrameCount::ZERO);
                prop_assert!(map.inflate(entry, PAGE).is_ok());
            }
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let mut map = map(16, 4096);
        let mut inflate = |frame, order| map.inflate(entry(frame, order), PAGE).err();
        assert_eq!(inflate(1024, 19), Some(EntryStatus::BadOrder));
        assert_eq!(inflate(1025, 1), Some(EntryStatus::Misaligned));
        assert_eq!(inflate(4096, 0), Some(EntryStatus::OutOfRange));
        assert_eq!(inflate(0xffff_ffff_ffff, 0), Some(EntryStatus::OutOfRange));
        assert_eq!(inflate(255, 0), Some(EntryStatus::Protected));
        assert_eq!(inflate(599, 0), Some(EntryStatus::Protected));
        assert_eq!(inflate(700, 0), Some(EntryStatus::Protected));
        assert_eq!(inflate(1024, 9), None);
        assert_eq!(inflate(1030, 0), Some(EntryStatus::AlreadyBallooned));
        assert_eq!(map.deflate(entry(1536, 9), FrameCount(9999)), Err(EntryStatus::NotBallooned));
        assert_eq!(map.deflate(entry(1024, 9), FrameCount(4095)), Err(EntryStatus::NotGranted));
        assert_eq!(map.deflate(entry(1024, 9), FrameCount(4096)), Ok(1024..1536));
    }

    #[test]
    fn the_device_hole_is_out_of_range_and_memory_behind_it_is_not() {
        let mut map = map(4 << 10, 4 << 18);
        assert_eq!(map.inflate(entry(3 << 18, 0), PAGE), Err(EntryStatus::OutOfRange));
        assert_eq!(map.inflate(entry(4 << 18, 18), PAGE), Ok(3 << 18..4 << 18));
        assert_eq!(map.inflate(entry(5 << 18, 0), PAGE), Err(EntryStatus::OutOfRange));
    }

    #[test]
    fn ballooned_frames_are_listed_in_the_largest_blocks_around_the_hole() {
        let mut map = map(4 << 10, 4 << 18);
        for (frame, order) in [(1023, 0), (1024, 9), (1536, 1), ((3 << 18) - 1, 0), (4 << 18, 9)] {
            map.inflate(entry(frame, order), PAGE).unwrap();
        }
        let blocks = |from| map.ballooned_blocks(FrameNumber(from)).map(|block| (block.frame.0, block.order));
        let listed = [(1023, 0), (1024, 9), (1536, 1), ((3 << 18) - 1, 0), (4 << 18, 9)];
        assert_eq!(blocks(0).collect::<Vec<_>>(), listed);
        assert_eq!(blocks(1024).collect::<Vec<_>>(), listed[1..]);
        assert_eq!(blocks(1025).next(), Some((1025, 0)), "from the middle of a block");
        assert_eq!(blocks(3 << 18).collect::<Vec<_>>(), listed[4..], "from within the hole");
        assert_eq!(blocks(u64::MAX).next(), None);
    }

    #[test]
    fn the_initial_balloon_counts_as_ballooned() {
        let mut map = map(16, 1000);
        assert_eq!(map.size(), FrameCount(1000));
        assert_eq!(map.inflate(entry(1000, 0), PAGE), Err(EntryStatus::AlreadyBallooned));
        assert_eq!(map.deflate(entry(1000, 0), FrameCount(1001)), Ok(1000..1001));
    }

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        let range = |start, end| FrameNumber(start)..FrameNumber(end);
        assert!(!overlap(&range(0, 4), &range(4, 8)));
        assert!(overlap(&range(0, 5), &range(4, 8)));
    }
}
