//! Frames on several CPUs, against counters: wherever frames are cached, every answer is that of one allocator.

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::{Block, BlockSize, FrameAllocator, FrameStatistics, Frames, Purpose, Sizing};
use crate::config::{EVICTION_RESERVE, KERNEL_FLOOR};
use crate::cpu;
use crate::mm::FRAMES;
use crate::mm::block::Contents;
use crate::mm::testing::TestMachine;

const CPUS: usize = 3;

fn page() -> Option<Block> {
    FRAMES.allocate(BlockSize::Frame, Purpose::Promised)
}

#[test]
fn sizing_follows_the_balloon() {
    let total = FrameCount(16 * HUGE_FRAMES);
    let frames = Frames::new();
    frames.start(FrameAllocator::leaked(total, &[], KERNEL_FLOOR), total);
    assert_eq!(frames.sizing(), Sizing::NONE);
    frames.begin_reclaim();
    assert_eq!(frames.sizing(), Sizing::of(total));
    let [one, other] = [(); 2].map(|()| frames.allocate(BlockSize::Huge, Purpose::Balloon).unwrap());
    let kept = frames.allocate(BlockSize::Huge, Purpose::Kernel).unwrap();
    assert_eq!((frames.ballooned(), frames.sizing()), (FrameCount(1024), Sizing::of(FrameCount(14 * HUGE_FRAMES))));
    frames.free_unbacked(one);
    frames.free(kept);
    assert_eq!(frames.sizing(), Sizing::of(FrameCount(15 * HUGE_FRAMES)));
    frames.free_ballooned(other);
    assert_eq!((frames.ballooned(), frames.sizing()), (FrameCount::ZERO, Sizing::of(total)));
}

#[test]
fn what_another_cpu_has_cached_can_be_had() {
    let machine = TestMachine::start(2);
    cpu::set_index(1);
    let free = machine.statistics().free;
    FRAMES.promise(FrameCount(40)).unwrap();
    let pages: Vec<_> = (0..40).map(|_| page().unwrap()).collect();
    pages.into_iter().for_each(|page| FRAMES.free_page(page));
    assert_eq!(machine.statistics().free, free);
    cpu::set_index(2);
    FRAMES.promise(FrameCount(free.0 - KERNEL_FLOOR.0)).expect("cached frames are free, too");
    FRAMES.end_promise(FrameCount(free.0 - KERNEL_FLOOR.0));
    let taken: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Frame, Purpose::Kernel)).collect();
    assert_eq!((taken.len() as u64, machine.statistics().free), (free.0, FrameCount::ZERO));
    taken.into_iter().for_each(|block| FRAMES.free(block));
}

#[test]
fn a_huge_frame_of_which_parts_are_cached_can_be_had() {
    let _machine = TestMachine::start(4);
    FRAMES.promise(FrameCount(HUGE_FRAMES)).unwrap();
    let others = [0, 1].map(|_| FRAMES.allocate(BlockSize::Huge, Purpose::Kernel).unwrap());
    for cpu in 0..CPUS {
        cpu::set_index(cpu);
        let block = page().unwrap();
        FRAMES.free_promised(block);
    }
    let huge = FRAMES.allocate(BlockSize::Huge, Purpose::Promised).expect("nobody uses any of it");
    FRAMES.free_promised(huge);
    others.into_iter().for_each(|block| FRAMES.free(block));
}

/// A huge frame stays with its CPU, and is everybody's all the same.
#[test]
fn a_cached_huge_frame_can_be_had_by_others() {
    let machine = TestMachine::start(4);
    let before = machine.statistics();
    FRAMES.promise(FrameCount(HUGE_FRAMES)).unwrap();
    cpu::set_index(1);
    let huge = FRAMES.allocate(BlockSize::Huge, Purpose::Promised).unwrap();
    let first = huge.first();
    FRAMES.free_promised(huge);
    assert_eq!(machine.statistics().promised, FrameCount(HUGE_FRAMES));
    let again = FRAMES.allocate(BlockSize::Huge, Purpose::Promised).unwrap();
    assert_eq!(again.first(), first);
    FRAMES.free_promised(again);
    cpu::set_index(2);
    FRAMES.end_promise(FrameCount(HUGE_FRAMES));
    assert_eq!(machine.statistics(), before);
    let all: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Huge, Purpose::Kernel)).collect();
    assert!(all.iter().any(|block| block.first() == first));
    all.into_iter().for_each(|block| FRAMES.free(block));
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "was written to while it was free")]
fn a_write_to_a_free_frame() {
    let _machine = TestMachine::start(2);
    FRAMES.promise(FrameCount(1)).unwrap();
    let block = page().unwrap();
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(to_usize(block.first().address()));
    FRAMES.free_promised(block);
    // SAFETY: memory of the test machine, which nobody uses now.
    unsafe { pointer.write(7) };
    let _ = page().map(Block::into_number);
}

#[derive(Clone, Debug)]
enum Step {
    Cpu(usize),
    Allocate { size: BlockSize, purpose: Purpose, count: usize },
    Promise(u64),
    EndPromise(u64),
    FreePages(usize),
    FreePromised(usize),
    Free(usize),
    AddCredit(u64),
    RemoveCredit(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let purpose = prop_oneof![
        3 => Just(Purpose::Promised),
        1 => Just(Purpose::PromisedPinned),
        1 => Just(Purpose::PromisedReserve),
        1 => Just(Purpose::Kernel),
        1 => Just(Purpose::Tier),
        1 => Just(Purpose::File),
        1 => Just(Purpose::Balloon),
    ];
    let size = prop_oneof![6 => Just(BlockSize::Frame), 1 => Just(BlockSize::Huge)];
    let count = || prop_oneof![1_usize..4, 20_usize..90, 300_usize..900];
    let step = prop_oneof![
        3 => (0..CPUS).prop_map(Step::Cpu),
        6 => (size, purpose, count()).prop_map(|(size, purpose, count)| Step::Allocate { size, purpose, count }),
        3 => (0_u64..900).prop_map(Step::Promise),
        1 => (0_u64..900).prop_map(Step::EndPromise),
        2 => count().prop_map(Step::FreePages),
        2 => count().prop_map(Step::FreePromised),
        1 => count().prop_map(Step::Free),
        1 => (0_u64..400).prop_map(Step::AddCredit),
        1 => (0_u64..400).prop_map(Step::RemoveCredit),
    ];
    vec(step, 1..60)
}

/// The counters alone.
#[derive(Clone, Copy, Debug)]
struct Account {
    free: u64,
    promised: u64,
    credit: u64,
}

impl Account {
    fn available(self) -> u64 {
        (self.free + self.credit).saturating_sub(self.promised + KERNEL_FLOOR.0)
    }

    fn open_to(self, purpose: Purpose) -> u64 {
        let reserve = if self.credit > 0 { EVICTION_RESERVE.0 } else { 0 };
        match purpose {
            Purpose::Kernel => self.free.saturating_sub(self.promised.saturating_sub(self.credit)),
            Purpose::Promised | Purpose::PromisedPinned => self.promised.min(self.free.saturating_sub(reserve)),
            Purpose::PromisedReserve => self.promised.min(self.free),
            Purpose::Tier => self.free,
            Purpose::File => self.free.saturating_sub(EVICTION_RESERVE.0),
            Purpose::Balloon | Purpose::Spare => self.available().min(self.free.saturating_sub(KERNEL_FLOOR.0)),
        }
    }

    fn statistics(self) -> FrameStatistics {
        FrameStatistics {
            free: FrameCount(self.free),
            promised: FrameCount(self.promised),
            available: FrameCount(self.available()),
        }
    }
}

/// What was held as numbers, so that a failing test has nothing to lose.
fn owned((first, size): (FrameNumber, BlockSize)) -> Block {
    Block::from_number(first, size, Contents::Unknown)
}

proptest! {
    #[test]
    fn caches_change_no_answer(steps in steps()) {
        let machine = TestMachine::start(4);
        let mut account = Account { free: machine.statistics().free.0, promised: 0, credit: 0 };
        let mut held: Vec<(FrameNumber, BlockSize)> = Vec::new();
        for step in steps {
            match step {
                Step::Cpu(index) => cpu::set_index(index),
                Step::Allocate { size, purpose, count } => {
                    for _ in 0..count {
                        let block = FRAMES.allocate(size, purpose);
                        let is_open = account.open_to(purpose) >= size.frames();
                        let is_whole = size == BlockSize::Frame || block.is_some(); // there may be no whole huge frame
                        prop_assert_eq!(block.is_some(), is_open && is_whole, "{:?} for {:?}", size, purpose);
                        let Some(block) = block else { break };
                        account.free -= size.frames();
                        match purpose {
                            Purpose::Kernel | Purpose::Balloon | Purpose::Spare => {}
                            Purpose::Tier | Purpose::File => account.credit += size.frames(),
                            _ => account.promised -= size.frames(),
                        }
                        held.push((block.into_number(), size));
                    }
                }
                Step::Promise(frames) => {
                    let missing = frames.saturating_sub(account.available());
                    let expected = if missing == 0 { Ok(()) } else { Err(FrameCount(missing)) };
                    prop_assert_eq!(FRAMES.promise(FrameCount(frames)), expected);
                    account.promised += if missing == 0 { frames } else { 0 };
                }
                Step::EndPromise(frames) => {
                    let frames = frames.min(account.promised);
                    FRAMES.end_promise(FrameCount(frames));
                    account.promised -= frames;
                }
                Step::FreePages(count) | Step::FreePromised(count) | Step::Free(count) => {
                    for held in held.drain(held.len().saturating_sub(count)..) {
                        let block = owned(held);
                        account.free += block.size().frames();
                        match step {
                            Step::FreePages(_) => FRAMES.free_page(block),
                            Step::Free(_) => FRAMES.free(block),
                            _ => {
                                account.promised += block.size().frames();
                                FRAMES.free_promised(block);
                            }
                        }
                    }
                }
                Step::AddCredit(frames) => {
                    FRAMES.add_credit(FrameCount(frames));
                    account.credit += frames;
                }
                Step::RemoveCredit(frames) => {
                    let frames = frames.min(account.credit);
                    FRAMES.remove_credit(FrameCount(frames));
                    account.credit -= frames;
                }
            }
            prop_assert_eq!(FRAMES.statistics(), account.statistics());
        }
        prop_assert_eq!(FRAMES.validate(), Ok(()));
        held.into_iter().for_each(|held| FRAMES.free(owned(held)));
    }
}
