//! Which pages the host may put behind each huge frame. Pure.
//!
//! The host allocates and frees a huge page as a whole: the first touch brings 2 MiB, and
//! `khugepaged` fills up what is there in part. Behind a huge frame that is ballooned in part, that
//! would be memory for frames in the balloon: the guest would use more than its size without any
//! fault of its own. So a *mixed* huge frame, part ballooned and part the guest's, may have small
//! pages only, from before the call that makes it so is answered until it is the guest's as a
//! whole. The guest does not touch a huge frame that is wholly ballooned, so what it may have stays
//! as it is, and to inflate and deflate whole huge frames changes nothing here.
//!
//! The *fixed* huge frames, those of boot information and the image, have small pages from the
//! start and for good: they can't be ballooned as a whole, and a guest uses little of them.
//!
//! The host is told once for each run of huge frames. It keeps a run as a memory area, and a
//! process may have `vm.max_map_count` of those, 65,530 by default: a guest below 127 GiB can't
//! reach that. Where a guest does, calls that would need another area are refused.
//!
//! Invariant, even where the host refuses: between calls, a huge frame that is mixed has small
//! pages.

use std::io;
use std::ops::Range;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};

use super::frame_map::{FrameMap, Frames};

const HUGE: usize = to_usize(HUGE_FRAMES);

/// A huge frame, by its index: its place in the monitor's mapping, in steps of 2 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HugeIndex(pub(super) usize);

impl HugeIndex {
    /// Returns the huge frame that holds the frame of this index.
    pub(super) const fn holding(frame: usize) -> Self {
        Self(frame / HUGE)
    }

    /// Returns the indexes of its frames.
    pub(super) const fn frames(self) -> Range<usize> {
        self.0 * HUGE..(self.0 + 1) * HUGE
    }
}

/// Huge frames in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HugeRun(Range<usize>);

impl HugeRun {
    /// Returns each of them.
    pub(super) fn huge_frames(&self) -> impl Iterator<Item = HugeIndex> + use<> {
        self.0.clone().map(HugeIndex)
    }

    /// Returns the indexes of their frames.
    pub(super) const fn frames(&self) -> Range<usize> {
        self.0.start * HUGE..self.0.end * HUGE
    }
}

/// What the host may back memory with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageSize {
    /// 4 KiB each.
    Small,
    /// 2 MiB each where possible, else small ones.
    Huge,
}

/// Returns the indexes of the frames of the fixed huge frames of a guest whose image lies in these
/// frames.
pub(super) fn fixed_frames(image: &Range<FrameNumber>) -> Range<usize> {
    // The image lies below the device hole, where indexes are frame numbers.
    0..to_usize(image.end.0.next_multiple_of(HUGE_FRAMES))
}

/// Which pages each huge frame may have.
#[derive(Debug)]
pub(super) struct PageSizes {
    /// The end of the fixed huge frames.
    fixed_end: HugeIndex,
    /// Set where the host is known to use small pages only. Zeroed memory costs nothing until it is
    /// written.
    small: Vec<bool>,
}

impl PageSizes {
    /// Allows huge pages for all of a guest's `total` frames but those of the fixed huge frames,
    /// `fixed`. No huge frame is mixed.
    pub(super) fn new(total: FrameCount, fixed: &Range<usize>) -> Self {
        let fixed_end = HugeIndex(fixed.end.div_ceil(HUGE));
        let mut small = vec![false; to_usize(total.0).div_ceil(HUGE)];
        small[..fixed_end.0].fill(true);
        Self { fixed_end, small }
    }

    /// Follows the map, in which `blocks` (ascending) have just been inflated or deflated: tells
    /// the host through `allow` what may be behind frames of these indexes from now on.
    /// [`Self::fits`] tells where that failed.
    ///
    /// Returns the huge frames that have become mixed. Each may still have a huge page behind it,
    /// as the host does not change what is already there; no other mixed huge frame has one.
    pub(super) fn follow<'a>(
        &mut self,
        map: &FrameMap,
        blocks: impl Iterator<Item = &'a Range<usize>>,
        mut allow: impl FnMut(&Range<usize>, PageSize) -> io::Result<()>,
    ) -> Vec<HugeRun> {
        let mut runs: Vec<(HugeRun, PageSize)> = Vec::new();
        for (huge, is_whole) in blocks.flat_map(huge_frames) {
            if is_whole && !self.small[huge.0] {
                // Neither mixed nor changed: the common case, and a fast one.
                continue;
            }
            let wanted = match map.state(&huge.frames()) {
                Some(Frames::Ballooned) => continue,
                Some(Frames::Guest) if huge >= self.fixed_end => PageSize::Huge,
                Some(Frames::Guest) => PageSize::Small,
                None => PageSize::Small,
            };
            if self.small[huge.0] == (wanted == PageSize::Small) {
                continue;
            }
            self.small[huge.0] = wanted == PageSize::Small;
            match runs.last_mut() {
                Some((HugeRun(run), size)) if run.end == huge.0 && *size == wanted => run.end += 1,
                _ => runs.push((HugeRun(huge.0..huge.0 + 1), wanted)),
            }
        }
        let mut mixed = Vec::new();
        for (run, size) in runs {
            if allow(&run.frames(), size).is_err() {
                // The host may have done a part of it. None of these is recorded as having small
                // pages, so it will be told again.
                self.small[run.0].fill(false);
            } else if size == PageSize::Small {
                mixed.push(run);
            }
        }
        mixed
    }

    /// Returns whether a block that was inflated or deflated may stay so: not where its huge frame
    /// is mixed and may have huge pages.
    pub(super) fn fits(&self, map: &FrameMap, block: &Range<usize>) -> bool {
        let huge = HugeIndex::holding(block.start);
        block.len() >= HUGE || self.small[huge.0] || map.state(&huge.frames()).is_some()
    }
}

#[cfg(any(test, feature = "harness"))]
impl PageSizes {
    /// Returns whether the invariant holds for a huge frame.
    pub(super) fn is_right(&self, map: &FrameMap, huge: HugeIndex) -> bool {
        self.small[huge.0] || map.state(&huge.frames()).is_some()
    }
}

/// Returns the huge frames that a block lies in, each with whether the block holds the whole of it.
fn huge_frames(block: &Range<usize>) -> impl Iterator<Item = (HugeIndex, bool)> {
    let is_whole = block.len() >= HUGE;
    (block.start / HUGE..block.end.div_ceil(HUGE)).map(move |huge| (HugeIndex(huge), is_whole))
}

#[cfg(test)]
mod tests {
    use super::{HUGE, HugeIndex, PageSize, PageSizes};
    use crate::frame_map::FrameMap;
    use crate::layout::MemoryLayout;
    use aerostat_abi::batch::Entry;
    use aerostat_abi::units::{FrameCount, FrameNumber};
    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any};
    use proptest::{prop_assert, prop_oneof, proptest};
    use std::io;
    use std::ops::Range;

    /// A guest of 16 MiB whose image is the second half of its first huge frame.
    fn map(initial: usize) -> FrameMap {
        let layout = MemoryLayout::new(FrameCount::from_mib(16)).unwrap();
        FrameMap::new(layout, FrameCount(initial as u64), FrameNumber(256)..FrameNumber(512))
    }

    /// A map with its page sizes, and a host that records what it was told.
    struct Guest {
        map: FrameMap,
        pages: PageSizes,
        told: Vec<(Range<usize>, PageSize)>,
    }

    impl Guest {
        fn new(initial: usize) -> Self {
            let pages = PageSizes::new(FrameCount::from_mib(16), &(0..HUGE));
            Self { map: map(initial), pages, told: Vec::new() }
        }

        /// Inflates or deflates blocks; returns the runs of huge frames of which the host was told.
        fn batch(
            &mut self,
            is_ballooned: impl Fn(Entry, &mut FrameMap) -> Range<usize>,
            entries: &[(usize, u8)],
        ) -> Vec<(Range<usize>, PageSize)> {
            let mut blocks: Vec<_> = entries
                .iter()
                .map(|&(frame, order)| is_ballooned(Entry::pending(FrameNumber(frame as u64), order), &mut self.map))
                .collect();
            blocks.sort_unstable_by_key(|block| block.start);
            self.pages.follow(&self.map, blocks.iter(), |frames, size| {
                self.told.push((frames.start / HUGE..frames.end / HUGE, size));
                Ok(())
            });
            assert!(blocks.iter().all(|block| self.pages.fits(&self.map, block)));
            std::mem::take(&mut self.told)
        }

        fn inflate(&mut self, entries: &[(usize, u8)]) -> Vec<(Range<usize>, PageSize)> {
            self.batch(|entry, map| map.inflate(entry, FrameNumber(0)).unwrap(), entries)
        }

        fn deflate(&mut self, entries: &[(usize, u8)]) -> Vec<(Range<usize>, PageSize)> {
            self.batch(|entry, map| map.deflate(entry, FrameCount(4096)).unwrap(), entries)
        }
    }

    #[test]
    fn whole_huge_frames_change_nothing() {
        let mut guest = Guest::new(4096);
        assert_eq!(guest.inflate(&[(512, 9), (2048, 10)]), []);
        assert_eq!(guest.deflate(&[(512, 9), (2048, 9), (2560, 9)]), []);
    }

    #[test]
    fn parts_that_make_a_whole_change_nothing() {
        let mut guest = Guest::new(4096);
        assert_eq!(guest.inflate(&[(1280, 8), (1024, 8)]), []);
        assert_eq!(guest.deflate(&[(1024, 8), (1280, 7), (1408, 7)]), []);
    }

    #[test]
    fn a_mixed_huge_frame_has_small_pages_until_it_is_whole() {
        let mut guest = Guest::new(4096);
        assert_eq!(guest.inflate(&[(1030, 0)]), [(2..3, PageSize::Small)]);
        assert_eq!(guest.inflate(&[(1024, 0)]), []);
        assert_eq!(guest.deflate(&[(1030, 0)]), []);
        assert_eq!(guest.deflate(&[(1024, 0)]), [(2..3, PageSize::Huge)]);
    }

    #[test]
    fn a_fixed_huge_frame_has_small_pages_for_good() {
        let layout = MemoryLayout::new(FrameCount::from_mib(16)).unwrap();
        let map = FrameMap::new(layout, FrameCount(4096), FrameNumber(256)..FrameNumber(300));
        let mut guest = Guest { map, ..Guest::new(4096) };
        assert_eq!(guest.inflate(&[(300, 0)]), []);
        assert_eq!(guest.deflate(&[(300, 0)]), []);
    }

    #[test]
    fn a_huge_frame_inflated_in_parts_and_deflated_whole_has_huge_pages_again() {
        let mut guest = Guest::new(4096);
        assert_eq!(guest.inflate(&[(1024, 8)]), [(2..3, PageSize::Small)]);
        assert_eq!(guest.inflate(&[(1280, 8)]), []);
        assert_eq!(guest.deflate(&[(1024, 9)]), [(2..3, PageSize::Huge)]);
    }

    #[test]
    fn a_frame_of_the_initial_balloon_comes_with_small_pages() {
        assert_eq!(Guest::new(1024).deflate(&[(1024, 0)]), [(2..3, PageSize::Small)]);
    }

    #[test]
    fn neighbours_are_one_run() {
        let mut guest = Guest::new(4096);
        let runs = guest.inflate(&[(3600, 0), (512, 0), (1500, 0), (1024, 0), (2000, 0)]);
        assert_eq!(runs, [(1..4, PageSize::Small), (7..8, PageSize::Small)]);
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let order = prop_oneof![1 => 0_u8..=4, 3 => 7_u8..=8, 2 => Just(9_u8), 1 => 10_u8..=11];
        let entry =
            (order, 0_u64..4096).prop_map(|(order, frame)| Entry::pending(FrameNumber(frame >> order << order), order));
        vec(entry, 1..12)
    }

    proptest! {
        /// A host that sometimes refuses, after having done a part, must never be able to put a
        /// huge page behind a mixed huge frame.
        #[test]
        fn mixed_huge_frames_never_have_huge_pages(
            calls in vec((entries(), any::<bool>(), vec(any::<Option<u8>>(), 8)), 1..60),
        ) {
            let mut map = map(2048);
            let mut pages = PageSizes::new(FrameCount::from_mib(16), &(0..HUGE));
            let mut host = [PageSize::Huge; 4096 / HUGE];
            host[0] = PageSize::Small;
            for (entries, inflates, failures) in calls {
                let mut carry_out = |entry| {
                    if inflates { map.inflate(entry, FrameNumber(0)) } else { map.deflate(entry, FrameCount(4096)) }
                };
                let mut blocks: Vec<_> = entries.into_iter().filter_map(|entry| carry_out(entry).ok()).collect();
                blocks.sort_unstable_by_key(|block| block.start);
                let mut failures = failures.into_iter().cycle();
                pages.follow(&map, blocks.iter(), |frames, size| {
                    let run = frames.start / HUGE..frames.end / HUGE;
                    let failure = failures.next().unwrap().map(|done| usize::from(done) % run.len());
                    host[run.start..run.start + failure.unwrap_or(run.len())].fill(size);
                    failure.map_or(Ok(()), |_| Err(io::ErrorKind::OutOfMemory.into()))
                });
                let unfit: Vec<_> = blocks.iter().filter(|block| !pages.fits(&map, block)).collect();
                for block in unfit {
                    if inflates { map.undo_inflate(block) } else { map.undo_deflate(block) }
                }
                for (huge, size) in host.iter().enumerate() {
                    let mixed = map.state(&HugeIndex(huge).frames()).is_none();
                    prop_assert!(!mixed || *size == PageSize::Small, "huge frame {huge}");
                }
            }
        }
    }
}
