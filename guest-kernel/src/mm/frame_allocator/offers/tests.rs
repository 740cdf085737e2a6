//! Offers, with a monitor that accepts some of them between any two steps of the guest.

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Block, BlockSize, Contents, FrameAllocator, Purpose};
use crate::mm::testing::block;

const HUGE: u64 = 8;
const FLOOR: FrameCount = FrameCount(100);

/// An allocator of eight huge frames, of which the host backs the second; the floor is in the last
/// one.
fn shared() -> FrameAllocator {
    let mut allocator = FrameAllocator::leaked(FrameCount(HUGE * HUGE_FRAMES), &[], FLOOR);
    let blocks = [0, 1].map(|_| allocator.allocate(BlockSize::Huge, Purpose::Kernel).unwrap());
    let [first, second] = blocks;
    allocator.free_reported(first);
    allocator.free(second);
    allocator.begin_offers();
    allocator
}

fn offered(allocator: &FrameAllocator) -> Vec<usize> {
    (0..to_usize(HUGE)).filter(|&huge| allocator.states()[huge].load().is_offered()).collect()
}

/// The monitor accepts an offer.
fn accept(allocator: &FrameAllocator, huge: usize) -> bool {
    allocator.states()[huge].reclaim().is_some()
}

fn collect(allocator: &mut FrameAllocator) -> Vec<u64> {
    std::iter::from_fn(|| allocator.collect_reclaimed()).map(|block| block.into_number().0 / HUGE_FRAMES).collect()
}

#[test]
fn all_but_the_floor_and_what_is_committed_is_offered() {
    let mut allocator = shared();
    assert_eq!(offered(&allocator), [0, 1, 2, 3, 4, 5, 6], "the floor is not");
    allocator.charge_commit(FrameCount(2 * HUGE_FRAMES)).unwrap();
    assert_eq!(offered(&allocator).len(), 5);
    allocator.uncharge_commit(FrameCount(2 * HUGE_FRAMES));
    allocator.offer_spare();
    assert_eq!(offered(&allocator).len(), 7);
    assert_eq!(allocator.statistics().free, FrameCount(HUGE * HUGE_FRAMES), "it is free all the same");
}

#[test]
fn an_allocation_withdraws_what_it_takes_and_a_freed_huge_frame_is_offered_again() {
    let mut allocator = shared();
    let block = allocator.allocate(BlockSize::Huge, Purpose::Kernel).unwrap();
    assert_eq!(block.first(), FrameNumber(HUGE_FRAMES), "the one that the host backs");
    assert!(!accept(&allocator, 1));
    allocator.free(block);
    assert!(accept(&allocator, 1));
    assert_eq!(allocator.validate(), Ok(()));
}

#[test]
fn what_the_host_reclaimed_is_skipped_and_collected_once() {
    let mut allocator = shared();
    assert!(accept(&allocator, 1) && accept(&allocator, 0) && !accept(&allocator, 7));
    let kept = allocator.allocate(BlockSize::Huge, Purpose::Kernel).unwrap();
    assert_eq!((kept.first(), kept.contents()), (FrameNumber(2 * HUGE_FRAMES), Contents::Zero));
    assert!(accept(&allocator, 4));
    assert_eq!(allocator.reclaimed_by_host(), FrameCount(3 * HUGE_FRAMES));
    assert_eq!(collect(&mut allocator), [0, 1, 4]);
    assert!(collect(&mut allocator).is_empty());
    assert_eq!(allocator.statistics().free, FrameCount(4 * HUGE_FRAMES));
    assert_eq!(allocator.validate(), Ok(()));
    allocator.free(kept);
    allocator.free_reported(block(FrameNumber(4 * HUGE_FRAMES), BlockSize::Huge));
    assert_eq!(offered(&allocator), [2, 3, 4, 5, 6]);
}

#[test]
fn a_commit_charge_is_backed_by_nothing_that_the_host_can_reclaim() {
    let mut allocator = shared();
    assert!((0..5).all(|huge| accept(&allocator, huge)));
    let left = FrameCount(3 * HUGE_FRAMES - FLOOR.0);
    assert_eq!(allocator.charge_commit(FrameCount(left.0 + 1)), Err(FrameCount(1)));
    allocator.charge_commit(left).unwrap();
    assert!((0..to_usize(HUGE)).all(|huge| !accept(&allocator, huge)));
}

#[test]
fn removed_swap_headroom_is_made_up_for() {
    let mut allocator = shared();
    allocator.add_headroom(FrameCount(2 * HUGE_FRAMES));
    allocator.charge_commit(FrameCount(2 * HUGE_FRAMES)).unwrap();
    allocator.offer_spare();
    assert_eq!(offered(&allocator).len(), 7);
    allocator.remove_headroom(FrameCount(2 * HUGE_FRAMES));
    assert_eq!(
        offered(&allocator).len(),
        6,
        "the last one and another keep the commit charges, the floor is used at need"
    );
    assert_eq!(allocator.validate(), Ok(()));
}

#[derive(Clone, Debug)]
enum Step {
    Accept(usize),
    Collect,
    OfferSpare,
    Allocate(BlockSize, Purpose),
    Free(usize),
    CommitCharge(u64),
    UnchargeCommit(u64),
    /// The balloon deflates by a block.
    Return(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![Just(BlockSize::Huge), Just(BlockSize::Frame)];
    let purpose = prop_oneof![Just(Purpose::Kernel), Just(Purpose::Committed), Just(Purpose::Balloon)];
    prop_oneof![
        4 => (0..to_usize(HUGE)).prop_map(Step::Accept),
        1 => Just(Step::Collect),
        1 => Just(Step::OfferSpare),
        4 => (size, purpose).prop_map(|(size, purpose)| Step::Allocate(size, purpose)),
        4 => (0_usize..100).prop_map(Step::Free),
        2 => (0_u64..1500).prop_map(Step::CommitCharge),
        1 => (0_u64..1500).prop_map(Step::UnchargeCommit),
        1 => (0_usize..100).prop_map(Step::Return),
    ]
}

proptest! {
    /// No frame has two owners, none is lost, and every commit charge can be kept, no matter when
    /// offers are accepted.
    #[test]
    fn every_frame_has_one_owner_and_every_commit_charge_is_kept(steps in vec(step(), 1..80)) {
        let mut allocator = shared();
        let mut used: Vec<(FrameNumber, BlockSize)> = Vec::new();
        let mut monitors: Vec<usize> = Vec::new();
        let mut balloon: Vec<u64> = Vec::new();
        let mut committed = 0;
        for step in steps {
            match step {
                Step::Accept(huge) => {
                    if accept(&allocator, huge) {
                        prop_assert!(!monitors.contains(&huge));
                        prop_assert!(used.iter().all(|(first, _)| to_usize(first.0 / HUGE_FRAMES) != huge));
                        monitors.push(huge);
                    }
                }
                Step::Collect => balloon.extend(collect(&mut allocator)),
                Step::OfferSpare => allocator.offer_spare(),
                Step::Allocate(size, purpose) => {
                    if let Some(block) = allocator.allocate(size, purpose) {
                        let first = block.into_number();
                        prop_assert!(!monitors.contains(&to_usize(first.0 / HUGE_FRAMES)), "{first:?} is the monitor's");
                        committed -= if purpose == Purpose::Committed { size.frames() } else { 0 };
                        used.push((first, size));
                    }
                }
                Step::Free(choice) if !used.is_empty() => {
                    let (first, size) = used.swap_remove(choice % used.len());
                    allocator.free(block(first, size));
                }
                Step::CommitCharge(frames) => {
                    committed += allocator.charge_commit(FrameCount(frames)).map_or(0, |()| frames);
                }
                Step::UnchargeCommit(frames) => {
                    let frames = frames.min(committed);
                    allocator.uncharge_commit(FrameCount(frames));
                    committed -= frames;
                }
                Step::Return(choice) if !balloon.is_empty() => {
                    let huge = balloon.swap_remove(choice % balloon.len());
                    monitors.retain(|&other| other as u64 != huge);
                    let first = FrameNumber(huge * HUGE_FRAMES);
                    allocator.free_reported(block(first, BlockSize::Huge));
                }
                Step::Free(_) | Step::Return(_) => {}
            }
            prop_assert_eq!(allocator.validate(), Ok(()));
        }
        for _ in 0..committed {
            prop_assert!(allocator.allocate(BlockSize::Frame, Purpose::Committed).map(Block::into_number).is_some());
        }
        balloon.extend(collect(&mut allocator));
        let in_use = committed + used.iter().map(|(_, size)| size.frames()).sum::<u64>();
        let free = HUGE * HUGE_FRAMES - in_use - monitors.len() as u64 * HUGE_FRAMES;
        prop_assert_eq!(allocator.statistics().free, FrameCount(free));
        balloon.sort_unstable();
        monitors.sort_unstable();
        prop_assert_eq!(balloon.into_iter().map(to_usize).collect::<Vec<_>>(), monitors);
    }
}
