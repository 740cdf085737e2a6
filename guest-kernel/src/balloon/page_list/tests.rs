//! The page list against a plain set, and the order in which blocks leave it.

use std::collections::BTreeSet;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use aerostat_balloon_driver::PageList as _;

use super::PageList;
use crate::mm::BlockSize;
use crate::mm::bump::BumpAllocator;
use crate::mm::testing::block;

const HUGE: u64 = 4;
const FRAMES: u64 = HUGE * HUGE_FRAMES;

impl PageList {
    /// A page list on the heap.
    pub(crate) fn leaked(huge_frames: usize) -> Self {
        Self::new(huge_frames, &mut BumpAllocator::leaked(Self::words(huge_frames)))
    }

    pub(crate) fn contains_frame(&self, frame: FrameNumber) -> bool {
        self.frames.contains(frame)
    }
}

fn insert(page_list: &mut PageList, first: u64, size: BlockSize) {
    page_list.insert(block(FrameNumber(first), size));
}

/// Removes a block, and returns its numbers.
fn remove(page_list: &mut PageList, frames: u64) -> Option<(u64, BlockSize)> {
    let block = page_list.remove(FrameCount(frames))?;
    let size = block.size();
    Some((block.into_number().0, size))
}

#[test]
fn huge_frames_leave_first_while_they_fit_then_frames_of_partial_ones() {
    let mut page_list = PageList::leaked(to_usize(HUGE));
    insert(&mut page_list, 5, BlockSize::Frame);
    insert(&mut page_list, HUGE_FRAMES, BlockSize::Huge);
    insert(&mut page_list, 2 * HUGE_FRAMES, BlockSize::Huge);
    assert_eq!(remove(&mut page_list, HUGE_FRAMES), Some((HUGE_FRAMES, BlockSize::Huge)));
    assert_eq!(remove(&mut page_list, HUGE_FRAMES - 1), Some((5, BlockSize::Frame)), "a huge frame would be too much");
    assert_eq!(remove(&mut page_list, 1), Some((2 * HUGE_FRAMES, BlockSize::Frame)), "no frame left but a huge one's");
    assert_eq!(remove(&mut page_list, HUGE_FRAMES), Some((2 * HUGE_FRAMES + 1, BlockSize::Frame)));
    assert_eq!(page_list.size(), FrameCount(HUGE_FRAMES - 2));
}

#[test]
fn nothing_is_removed_from_an_empty_list_or_for_no_frames() {
    let mut page_list = PageList::leaked(to_usize(HUGE));
    assert_eq!(remove(&mut page_list, FRAMES), None);
    insert(&mut page_list, 0, BlockSize::Huge);
    assert_eq!(remove(&mut page_list, 0), None);
}

#[test]
fn single_frames_become_a_huge_frame() {
    let mut page_list = PageList::leaked(to_usize(HUGE));
    for frame in (HUGE_FRAMES..2 * HUGE_FRAMES).rev() {
        insert(&mut page_list, frame, BlockSize::Frame);
    }
    assert_eq!(remove(&mut page_list, FRAMES), Some((HUGE_FRAMES, BlockSize::Huge)));
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "two owners")]
fn a_frame_inserted_twice_is_caught() {
    let mut page_list = PageList::leaked(to_usize(HUGE));
    insert(&mut page_list, 0, BlockSize::Huge);
    insert(&mut page_list, 7, BlockSize::Frame);
}

#[derive(Clone, Debug)]
enum Step {
    /// The frames of a run that are not in the page list.
    Insert {
        first: u64,
        count: u64,
    },
    InsertHuge(u64),
    Deflate {
        frames: u64,
    },
    /// All frames in a run.
    RemoveWithin {
        first: u64,
        count: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..FRAMES, 1..HUGE_FRAMES).prop_map(|(first, count)| Step::Insert { first, count }),
        (0..HUGE).prop_map(Step::InsertHuge),
        (0..FRAMES).prop_map(|frames| Step::Deflate { frames }),
        (0..FRAMES, 0..FRAMES).prop_map(|(first, count)| Step::RemoveWithin { first, count }),
    ];
    vec(step, 1..40)
}

proptest! {
    #[test]
    fn blocks_that_were_inserted_leave_once_and_as_many_as_asked(steps in steps()) {
        let mut page_list = PageList::leaked(to_usize(HUGE));
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Step::Insert { first, count } => {
                    for frame in (first..(first + count).min(FRAMES)).filter(|&frame| model.insert(frame)) {
                        insert(&mut page_list, frame, BlockSize::Frame);
                    }
                }
                Step::InsertHuge(huge) => {
                    let frames = huge * HUGE_FRAMES..(huge + 1) * HUGE_FRAMES;
                    if model.range(frames.clone()).next().is_none() {
                        insert(&mut page_list, frames.start, BlockSize::Huge);
                        model.extend(frames);
                    }
                }
                Step::Deflate { frames } => {
                    let expected = frames.min(model.len() as u64);
                    let mut removed = 0;
                    while let Some((first, size)) = remove(&mut page_list, frames - removed) {
                        removed += size.frames();
                        prop_assert!((first..first + size.frames()).all(|frame| model.remove(&frame)));
                    }
                    prop_assert_eq!(removed, expected);
                }
                Step::RemoveWithin { first, count } => {
                    let end = (first + count).min(FRAMES);
                    let mut at = first;
                    while let Some(block) = page_list.remove_within(FrameNumber(at)..FrameNumber(end)) {
                        let size = block.size();
                        let removed = block.into_number().0;
                        prop_assert!(removed >= at && removed + size.frames() <= end);
                        prop_assert!((at..removed).all(|frame| !model.contains(&frame)), "the lowest first");
                        prop_assert!((removed..removed + size.frames()).all(|frame| model.remove(&frame)));
                        at = removed + size.frames();
                    }
                    prop_assert_eq!(model.range(at.min(end)..end).next(), None);
                }
            }
            prop_assert_eq!(page_list.validate(), Ok(()));
            prop_assert_eq!(page_list.size(), FrameCount(model.len() as u64));
        }
        for frame in 0..FRAMES {
            prop_assert_eq!(page_list.contains_frame(FrameNumber(frame)), model.contains(&frame));
        }
    }
}
