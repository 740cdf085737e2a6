//! Frames on several CPUs, against counters: wherever frames are cached, every answer is that of
//! one allocator.
#![allow(unsafe_code, reason = "a test writes to a frame that is free")]

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::{Block, BlockSize, FrameAllocator, FrameStatistics, Frames, Purpose, Sizing};
use crate::arch::x86_64::cpu;
use crate::config::{EVICTION_RESERVE, KERNEL_FLOOR};
use crate::mm::FRAMES;
use crate::mm::testing::{TestMachine, block};

const CPUS: usize = 3;

fn page() -> Option<Block> {
    FRAMES.allocate(BlockSize::Frame, Purpose::Committed)
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
    FRAMES.charge_commit(FrameCount(40)).unwrap();
    let pages: Vec<_> = (0..40).map(|_| page().unwrap()).collect();
    pages.into_iter().for_each(|page| FRAMES.free_page(page));
    assert_eq!(machine.statistics().free, free);
    cpu::set_index(2);
    FRAMES.charge_commit(FrameCount(free.0 - KERNEL_FLOOR.0)).expect("cached frames are free, too");
    FRAMES.uncharge_commit(FrameCount(free.0 - KERNEL_FLOOR.0));
    let taken: Vec<_> = core::iter::from_fn(|| FRAMES.allocate(BlockSize::Frame, Purpose::Kernel)).collect();
    assert_eq!((taken.len() as u64, machine.statistics().free), (free.0, FrameCount::ZERO));
    taken.into_iter().for_each(|block| FRAMES.free(block));
}

#[test]
fn a_huge_frame_of_which_parts_are_cached_can_be_had() {
    let _machine = TestMachine::start(4);
    FRAMES.charge_commit(FrameCount(HUGE_FRAMES)).unwrap();
    let others = [0, 1].map(|_| FRAMES.allocate(BlockSize::Huge, Purpose::Kernel).unwrap());
    for cpu in 0..CPUS {
        cpu::set_index(cpu);
        let block = page().unwrap();
        FRAMES.free_committed(block);
    }
    let huge = FRAMES.allocate(BlockSize::Huge, Purpose::Committed).expect("no frame of it is in use");
    FRAMES.free_committed(huge);
    others.into_iter().for_each(|block| FRAMES.free(block));
}

/// A huge frame is cached by its CPU, but every CPU can allocate it.
#[test]
fn a_cached_huge_frame_can_be_had_by_others() {
    let machine = TestMachine::start(4);
    let before = machine.statistics();
    FRAMES.charge_commit(FrameCount(HUGE_FRAMES)).unwrap();
    cpu::set_index(1);
    let huge = FRAMES.allocate(BlockSize::Huge, Purpose::Committed).unwrap();
    let first = huge.first();
    FRAMES.free_committed(huge);
    assert_eq!(machine.statistics().committed, FrameCount(HUGE_FRAMES));
    let again = FRAMES.allocate(BlockSize::Huge, Purpose::Committed).unwrap();
    assert_eq!(again.first(), first);
    FRAMES.free_committed(again);
    cpu::set_index(2);
    FRAMES.uncharge_commit(FrameCount(HUGE_FRAMES));
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
    FRAMES.charge_commit(FrameCount(1)).unwrap();
    let block = page().unwrap();
    let pointer = core::ptr::with_exposed_provenance_mut::<u64>(to_usize(block.first().address()));
    FRAMES.free_committed(block);
    // SAFETY: memory of the test machine, which no code uses now.
    unsafe { pointer.write(7) };
    let _ = page().map(Block::into_number);
}

#[derive(Clone, Debug)]
enum Step {
    Cpu(usize),
    Allocate { size: BlockSize, purpose: Purpose, count: usize },
    CommitCharge(u64),
    UnchargeCommit(u64),
    FreePages(usize),
    FreeCommitted(usize),
    Free(usize),
    AddHeadroom(u64),
    RemoveHeadroom(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let purpose = prop_oneof![
        3 => Just(Purpose::Committed),
        1 => Just(Purpose::CommittedPinned),
        1 => Just(Purpose::CommittedReserve),
        1 => Just(Purpose::Kernel),
        1 => Just(Purpose::CompressedPool),
        1 => Just(Purpose::File),
        1 => Just(Purpose::Balloon),
    ];
    let size = prop_oneof![6 => Just(BlockSize::Frame), 1 => Just(BlockSize::Huge)];
    let count = || prop_oneof![1_usize..4, 20_usize..90, 300_usize..900];
    let step = prop_oneof![
        3 => (0..CPUS).prop_map(Step::Cpu),
        6 => (size, purpose, count()).prop_map(|(size, purpose, count)| Step::Allocate { size, purpose, count }),
        3 => (0_u64..900).prop_map(Step::CommitCharge),
        1 => (0_u64..900).prop_map(Step::UnchargeCommit),
        2 => count().prop_map(Step::FreePages),
        2 => count().prop_map(Step::FreeCommitted),
        1 => count().prop_map(Step::Free),
        1 => (0_u64..400).prop_map(Step::AddHeadroom),
        1 => (0_u64..400).prop_map(Step::RemoveHeadroom),
    ];
    vec(step, 1..60)
}

/// The counters alone.
#[derive(Clone, Copy, Debug)]
struct Account {
    free: u64,
    committed: u64,
    headroom: u64,
}

impl Account {
    fn available(self) -> u64 {
        (self.free + self.headroom).saturating_sub(self.committed + KERNEL_FLOOR.0)
    }

    fn open_to(self, purpose: Purpose) -> u64 {
        let reserve = if self.headroom > 0 { EVICTION_RESERVE.0 } else { 0 };
        match purpose {
            Purpose::Kernel => self.free.saturating_sub(self.committed.saturating_sub(self.headroom)),
            Purpose::Committed | Purpose::CommittedPinned => self.committed.min(self.free.saturating_sub(reserve)),
            Purpose::CommittedReserve => self.committed.min(self.free),
            Purpose::CompressedPool => self.free,
            Purpose::File => self.free.saturating_sub(EVICTION_RESERVE.0),
            Purpose::Balloon | Purpose::Spare => self.available().min(self.free.saturating_sub(KERNEL_FLOOR.0)),
        }
    }

    fn statistics(self) -> FrameStatistics {
        FrameStatistics {
            free: FrameCount(self.free),
            committed: FrameCount(self.committed),
            available: FrameCount(self.available()),
        }
    }
}

/// What was held as numbers, so that a failing test has nothing to lose.
fn owned((first, size): (FrameNumber, BlockSize)) -> Block {
    block(first, size)
}

proptest! {
    #[test]
    fn caches_change_no_answer(steps in steps()) {
        let machine = TestMachine::start(4);
        let mut account = Account { free: machine.statistics().free.0, committed: 0, headroom: 0 };
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
                            Purpose::CompressedPool | Purpose::File => account.headroom += size.frames(),
                            _ => account.committed -= size.frames(),
                        }
                        held.push((block.into_number(), size));
                    }
                }
                Step::CommitCharge(frames) => {
                    let missing = frames.saturating_sub(account.available());
                    let expected = if missing == 0 { Ok(()) } else { Err(FrameCount(missing)) };
                    prop_assert_eq!(FRAMES.charge_commit(FrameCount(frames)), expected);
                    account.committed += if missing == 0 { frames } else { 0 };
                }
                Step::UnchargeCommit(frames) => {
                    let frames = frames.min(account.committed);
                    FRAMES.uncharge_commit(FrameCount(frames));
                    account.committed -= frames;
                }
                Step::FreePages(count) | Step::FreeCommitted(count) | Step::Free(count) => {
                    for held in held.drain(held.len().saturating_sub(count)..) {
                        let block = owned(held);
                        account.free += block.size().frames();
                        match step {
                            Step::FreePages(_) => FRAMES.free_page(block),
                            Step::Free(_) => FRAMES.free(block),
                            _ => {
                                account.committed += block.size().frames();
                                FRAMES.free_committed(block);
                            }
                        }
                    }
                }
                Step::AddHeadroom(frames) => {
                    FRAMES.add_headroom(FrameCount(frames));
                    account.headroom += frames;
                }
                Step::RemoveHeadroom(frames) => {
                    let frames = frames.min(account.headroom);
                    FRAMES.remove_headroom(FrameCount(frames));
                    account.headroom -= frames;
                }
            }
            prop_assert_eq!(FRAMES.statistics(), account.statistics());
        }
        prop_assert_eq!(FRAMES.validate(), Ok(()));
        held.into_iter().for_each(|held| FRAMES.free(owned(held)));
    }
}
