//! Fragmented memory that becomes whole again, with everything in it.

use std::collections::BTreeMap;

use aerostat_abi::units::{FRAME_BYTES, FRAME_SIZE, FrameCount, FrameNumber, HUGE_FRAMES};
use aerostat_reclaim_policy::Name;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::moved_pages;
use crate::layout::APP_REGIONS;
use crate::mm::compaction::collapse;
use crate::mm::reclaim::reclaim;
use crate::mm::reclaim::start::{Swap, start};
use crate::mm::testing::TestMachine;
use crate::mm::{BlockSize, FRAMES, Purpose, map_region, unmap_region, validate};

/// Pages of a region that has no room for a huge page.
const SMALL_REGION: u64 = 480;

fn compact(wanted: usize) -> usize {
    super::compact(wanted, || ())
}

/// Regions of small pages that were touched in turn, so that each has frames in every huge frame;
/// each page has its address in it.
fn interleaved_regions(machine: &TestMachine, count: u64) -> Vec<u64> {
    let starts: Vec<_> = (0..count).map(|_| map_region(APP_REGIONS, SMALL_REGION * FRAME_BYTES).unwrap()).collect();
    for page in 0..SMALL_REGION {
        for &start in &starts {
            let at = start + page * FRAME_BYTES;
            machine.touch(at).unwrap();
            machine.set_word(at, at);
        }
    }
    starts
}

fn expect_contents(machine: &TestMachine, start: u64) {
    for page in (start..start + SMALL_REGION * FRAME_BYTES).step_by(FRAME_SIZE) {
        assert_eq!(machine.word(page), page);
    }
}

fn whole() -> usize {
    FRAMES.huge_frames().0
}

#[test]
fn huge_frames_come_free_and_pages_keep_their_contents() {
    let machine = TestMachine::start(12);
    let starts = interleaved_regions(&machine, 8);
    let all = whole();
    starts[..6].iter().for_each(|start| unmap_region(*start));
    let (fragmented, moved, before) = (whole(), moved_pages(), machine.statistics());
    assert!(fragmented < all + 2, "the other regions' pages lie everywhere");
    let gained = compact(4);
    assert_eq!((gained, whole()), (4, fragmented + 4));
    assert!(moved_pages() - moved >= 4 && machine.statistics() == before);
    starts[6..].iter().for_each(|start| expect_contents(&machine, *start));
    assert_eq!(validate(), Ok(()));
    starts[6..].iter().for_each(|start| unmap_region(*start));
    assert_eq!((machine.statistics().committed, validate()), (FrameCount::ZERO, Ok(())));
}

#[test]
fn huge_frames_with_kernel_frames_in_them_are_left_alone() {
    let machine = TestMachine::start(8);
    let kept = machine.break_huge_frames();
    let starts = interleaved_regions(&machine, 2);
    unmap_region(starts[0]);
    let pinned: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Frame, Purpose::Kernel)).collect();
    pinned.into_iter().for_each(|block| FRAMES.free(block)); // all were pinned once, and all have something in them
    let moved = moved_pages();
    assert_eq!((compact(8), moved_pages()), (0, moved));
    expect_contents(&machine, starts[1]);
    machine.mend_huge_frames(kept);
}

#[test]
fn kernel_frames_and_pages_are_kept_apart() {
    let machine = TestMachine::start(8);
    let starts = interleaved_regions(&machine, 2);
    let huge_frame = |frame: FrameNumber| frame.0 / HUGE_FRAMES;
    let of_pages: Vec<_> = starts.iter().map(|start| huge_frame(machine.frame_at(*start).unwrap())).collect();
    for _ in 0..100 {
        let block = FRAMES.allocate(BlockSize::Frame, Purpose::Kernel).unwrap();
        assert!(!of_pages.contains(&huge_frame(block.into_number())));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map { pages: u64 },
    Unmap { choice: usize },
    Write { choice: usize, page: u64, count: u64 },
    Access { choice: usize },
    Evict { pages: u64 },
    Collapse { scans: usize },
    Compact { wanted: usize },
    InflateHuge,
    DeflateHuge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let choice = || 0_usize..100;
    let step = prop_oneof![
        3 => (1..3 * HUGE_FRAMES).prop_map(|pages| Step::Map { pages }),
        2 => choice().prop_map(|choice| Step::Unmap { choice }),
        5 => (choice(), 0..3 * HUGE_FRAMES, 1_u64..700)
            .prop_map(|(choice, page, count)| Step::Write { choice, page, count }),
        2 => choice().prop_map(|choice| Step::Access { choice }),
        2 => (1_u64..900).prop_map(|pages| Step::Evict { pages }),
        2 => (1_usize..3).prop_map(|scans| Step::Collapse { scans }),
        2 => (1_usize..5).prop_map(|wanted| Step::Compact { wanted }),
        1 => Just(Step::InflateHuge),
        1 => Just(Step::DeflateHuge),
    ];
    vec(step, 1..40)
}

/// By start: the end, and what was written, by page.
type Regions = BTreeMap<u64, (u64, BTreeMap<u64, u64>)>;

fn choose(regions: &Regions, choice: usize) -> Option<u64> {
    regions.keys().nth(choice.checked_rem(regions.len())?).copied()
}

fn apply(machine: &TestMachine, regions: &mut Regions, step: &Step, number: u64) -> Result<(), TestCaseError> {
    match *step {
        Step::Map { pages } => {
            let start = map_region(APP_REGIONS, pages * FRAME_BYTES);
            regions.extend(start.map(|start| (start, (start + pages * FRAME_BYTES, BTreeMap::new()))));
        }
        Step::Unmap { choice } => {
            if let Some(start) = choose(regions, choice) {
                unmap_region(start);
                regions.remove(&start);
            }
        }
        Step::Write { choice, page, count } => {
            let Some(start) = choose(regions, choice) else { return Ok(()) };
            let (end, words) = regions.get_mut(&start).unwrap();
            let first = start + page * FRAME_BYTES;
            for page in (first..(first + count * FRAME_BYTES).min(*end)).step_by(FRAME_SIZE) {
                prop_assert_eq!(machine.touch(page), Ok(()));
                prop_assert_eq!(machine.word(page), words.get(&page).copied().unwrap_or(0));
                machine.set_word(page, page ^ number);
                words.insert(page, page ^ number);
            }
        }
        Step::Access { choice } => {
            let Some(start) = choose(regions, choice) else { return Ok(()) };
            (start..regions[&start].0).step_by(FRAME_SIZE).for_each(|page| machine.access(page));
        }
        Step::Evict { pages } => drop(reclaim(FrameCount(pages))),
        Step::Collapse { scans } => {
            for _ in 0..scans {
                regions.keys().for_each(|start| machine.access(*start));
                collapse::collapse_tables(|| ());
            }
        }
        Step::Compact { wanted } => drop(compact(wanted)),
        Step::InflateHuge | Step::DeflateHuge => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn memory_holds_what_was_written_whatever_moves(steps in steps()) {
        let machine = TestMachine::start(12);
        let total = FrameCount(6 * HUGE_FRAMES);
        start(Swap { policy: Name::default(), compressed: total, disk: None });
        let mut regions = Regions::new();
        let mut ballooned = Vec::new();
        for (number, step) in (1..).zip(&steps) {
            match step {
                Step::InflateHuge => ballooned.extend(FRAMES.allocate(BlockSize::Huge, Purpose::Balloon)),
                Step::DeflateHuge => ballooned.pop().into_iter().for_each(|block| FRAMES.free(block)),
                _ => apply(&machine, &mut regions, step, number)?,
            }
            prop_assert_eq!(validate(), Ok(()));
        }
        ballooned.into_iter().for_each(|block| FRAMES.free(block));
        for (start, (_, words)) in regions {
            for (page, word) in words {
                prop_assert_eq!(machine.touch(page), Ok(()));
                prop_assert_eq!(machine.word(page), word);
            }
            unmap_region(start);
        }
        let free = machine.statistics().free;
        prop_assert_eq!((machine.statistics().committed, validate()), (FrameCount::ZERO, Ok(())));
        prop_assert_eq!(free.0.div_ceil(HUGE_FRAMES), 12, "all is free but a few tables");
    }
}
