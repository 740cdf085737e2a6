//! The set against a plain one, and its refusals.

use std::collections::BTreeSet;
use std::ops::Range;

use aerostat_abi::units::{FrameNumber, HUGE_FRAMES, HugeFrameNumber, to_usize};
use proptest::collection::vec;
use proptest::prelude::Strategy;
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::FrameSet;
use crate::mm::bump::BumpAllocator;
use crate::mm::testing::block;
use crate::mm::{Block, BlockSize};

const HUGE: u64 = 4;
const FRAMES: u64 = HUGE * HUGE_FRAMES;

fn empty_set() -> FrameSet {
    FrameSet::new(to_usize(HUGE), &mut BumpAllocator::leaked(FrameSet::words(to_usize(HUGE))))
}

/// Returns the number of a block that the set has handed out.
fn number(block: Option<Block>) -> Option<FrameNumber> {
    block.map(Block::into_number)
}

#[derive(Clone, Debug)]
enum Step {
    /// Those of a run of frames that are not members yet, one by one.
    InsertRun {
        first: u64,
        count: u64,
    },
    /// A whole huge frame, if none of it is a member.
    InsertHuge(u64),
    RemoveRun {
        first: u64,
        count: u64,
    },
    RemoveWhole(u64),
    TakeWhole,
    TakeFromPartial {
        count: u64,
    },
    Break(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = || (0..FRAMES, 1..2 * HUGE_FRAMES);
    let step = prop_oneof![
        3 => run().prop_map(|(first, count)| Step::InsertRun { first, count }),
        2 => (0..HUGE).prop_map(Step::InsertHuge),
        2 => run().prop_map(|(first, count)| Step::RemoveRun { first, count }),
        1 => (0..HUGE).prop_map(Step::RemoveWhole),
        1 => proptest::strategy::Just(Step::TakeWhole),
        1 => (1..HUGE_FRAMES).prop_map(|count| Step::TakeFromPartial { count }),
        1 => (0..HUGE).prop_map(Step::Break),
    ];
    vec(step, 1..40)
}

fn frames_of(huge: u64) -> Range<u64> {
    huge * HUGE_FRAMES..(huge + 1) * HUGE_FRAMES
}

fn is_whole(model: &BTreeSet<u64>, huge: u64) -> bool {
    model.range(frames_of(huge)).count() as u64 == HUGE_FRAMES
}

fn first_in_partial(model: &BTreeSet<u64>) -> Option<u64> {
    let huge = (0..HUGE).find(|&huge| model.range(frames_of(huge)).next().is_some() && !is_whole(model, huge))?;
    model.range(frames_of(huge)).next().copied()
}

/// Does the same to both and compares the answers.
fn apply(set: &mut FrameSet, model: &mut BTreeSet<u64>, step: &Step) -> Result<(), TestCaseError> {
    match *step {
        Step::InsertRun { first, count } => {
            for frame in first..(first + count).min(FRAMES) {
                if model.insert(frame) {
                    let is_now_whole = set.insert(block(FrameNumber(frame), BlockSize::Frame));
                    prop_assert_eq!(is_now_whole, is_whole(model, frame / HUGE_FRAMES));
                }
            }
        }
        Step::InsertHuge(huge) => {
            if !frames_of(huge).any(|frame| model.contains(&frame)) {
                model.extend(frames_of(huge));
                prop_assert_eq!(set.insert(block(FrameNumber(huge * HUGE_FRAMES), BlockSize::Huge)), true);
            }
        }
        Step::RemoveRun { first, count } => {
            for frame in first..(first + count).min(FRAMES) {
                prop_assert_eq!(number(set.remove_frame(FrameNumber(frame))).is_some(), model.remove(&frame));
            }
        }
        Step::RemoveWhole(huge) => {
            let expected = is_whole(model, huge).then_some(FrameNumber(huge * HUGE_FRAMES));
            prop_assert_eq!(number(set.remove_whole(HugeFrameNumber(huge))), expected);
            model.retain(|frame| expected.is_none() || frame / HUGE_FRAMES != huge);
        }
        Step::TakeWhole => {
            let huge = (0..HUGE).find(|&huge| is_whole(model, huge));
            prop_assert_eq!(number(set.take_whole()), huge.map(|huge| FrameNumber(huge * HUGE_FRAMES)));
            model.retain(|frame| Some(frame / HUGE_FRAMES) != huge);
        }
        Step::TakeFromPartial { count } => {
            for _ in 0..count {
                let expected = first_in_partial(model);
                prop_assert_eq!(number(set.take_from_partial()), expected.map(FrameNumber));
                expected.map(|frame| model.remove(&frame));
            }
        }
        // A huge frame is only broken to remove a frame of it at once.
        Step::Break(huge) => {
            if is_whole(model, huge) && first_in_partial(model).is_none() {
                set.break_whole(HugeFrameNumber(huge));
                prop_assert_eq!(number(set.take_from_partial()), Some(FrameNumber(huge * HUGE_FRAMES)));
                model.remove(&(huge * HUGE_FRAMES));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behaves_like_a_plain_set(steps in steps()) {
        let (mut set, mut model) = (empty_set(), BTreeSet::new());
        for step in &steps {
            apply(&mut set, &mut model, step)?;
            prop_assert_eq!(set.validate(), Ok(()));
            prop_assert_eq!(set.len(), model.len() as u64);
            for huge in 0..HUGE {
                prop_assert_eq!(set.count_in(HugeFrameNumber(huge)), model.range(frames_of(huge)).count() as u64);
                prop_assert_eq!(set.contains_whole(HugeFrameNumber(huge)), is_whole(&model, huge));
            }
        }
        for frame in 0..FRAMES {
            prop_assert_eq!(set.contains(FrameNumber(frame)), model.contains(&frame));
        }
    }
}

#[test]
fn a_filled_set_holds_every_frame_and_nothing_beyond() {
    let mut set = empty_set();
    // SAFETY: the frames of a test have no other owner.
    unsafe { set.fill() };
    assert_eq!((set.len(), set.first_whole()), (FRAMES, Some(HugeFrameNumber(0))));
    assert!((0..FRAMES).all(|frame| set.contains(FrameNumber(frame))));
    assert!(!set.contains(FrameNumber(FRAMES)) && !set.contains(FrameNumber(u64::MAX)));
    assert_eq!(set.validate(), Ok(()));
}

#[test]
fn the_last_frame_of_a_huge_frame_makes_it_whole_again() {
    let mut set = empty_set();
    // SAFETY: the frames of a test have no other owner.
    unsafe { set.fill() };
    assert_eq!(number(set.remove_frame(FrameNumber(700))), Some(FrameNumber(700)));
    assert!(!set.contains_whole(HugeFrameNumber(1)));
    assert!(set.insert(block(FrameNumber(700), BlockSize::Frame)));
    assert_eq!(number(set.remove_whole(HugeFrameNumber(1))), Some(FrameNumber(HUGE_FRAMES)));
}

/// What owners may never do, caught in debug builds.
#[cfg(debug_assertions)]
mod misuse {
    use super::{BlockSize, FrameNumber, HUGE_FRAMES, block, empty_set};

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_frame_inserted_twice() {
        let mut set = empty_set();
        set.insert(block(FrameNumber(9), BlockSize::Frame));
        set.insert(block(FrameNumber(9), BlockSize::Frame));
    }

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_frame_of_a_member_huge_frame() {
        let mut set = empty_set();
        set.insert(block(FrameNumber(HUGE_FRAMES), BlockSize::Huge));
        set.insert(block(FrameNumber(HUGE_FRAMES + 3), BlockSize::Frame));
    }

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_huge_frame_around_a_member_frame() {
        let mut set = empty_set();
        set.insert(block(FrameNumber(HUGE_FRAMES + 3), BlockSize::Frame));
        set.insert(block(FrameNumber(HUGE_FRAMES), BlockSize::Huge));
    }

    #[test]
    #[should_panic(expected = "two owners")]
    fn a_huge_frame_inserted_twice() {
        let mut set = empty_set();
        set.insert(block(FrameNumber(0), BlockSize::Huge));
        set.insert(block(FrameNumber(0), BlockSize::Huge));
    }
}
