//! The driver with the kernel's own frame allocator and page list.

mod real_monitor;

use core::ops::Range;

use aerostat_abi::batch::{CAPACITY, Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, HUGE_ORDER, HugeFrameNumber, to_usize};
use aerostat_balloon_driver::{Compactable, Driver, Extent, Listed, Memory, Monitor, Next, RateLimits, Reply, Room};
use proptest::collection::vec;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::page_list::PageList;
use crate::mm::block::{Backing, HugeRun};
use crate::mm::testing::block;
use crate::mm::{Block, BlockSize, FrameAllocator, Purpose};

const HUGE: u64 = 12;
const TOTAL: FrameCount = FrameCount(HUGE * HUGE_FRAMES);
const FLOOR: FrameCount = FrameCount(2 * HUGE_FRAMES);
const KERNEL_FLOOR: FrameCount = FrameCount(100);
const SECOND_NS: u64 = 1_000_000_000;

/// The kernel's allocator as the driver's memory, and the time.
struct GuestMemory(FrameAllocator, u64);

impl Memory for GuestMemory {
    type Block = Block;

    fn now_ns(&self) -> u64 {
        self.1
    }

    fn claim(&mut self, first: FrameNumber, size: BlockSize) -> Option<Block> {
        self.0.claim_block(first, size, Purpose::Balloon)
    }

    fn claim_run(&mut self, frames: Range<FrameNumber>) -> Option<HugeRun> {
        self.0.claim_run(HugeFrameNumber::containing(frames.start)..HugeFrameNumber::containing(frames.end))
    }

    fn collect_reclaimed(&mut self) -> Option<Block> {
        self.0.collect_reclaimed()
    }

    fn compactable(&mut self, _wanted: usize) -> Compactable {
        Compactable::default()
    }

    fn compact(&mut self, _wanted: usize) -> usize {
        0
    }

    fn make_room(&mut self, _size: BlockSize) -> Room {
        Room::Nothing
    }

    fn has_waiters(&mut self) -> bool {
        false
    }

    fn allocate(&mut self, size: BlockSize) -> Option<Block> {
        self.0.allocate(size, Purpose::Balloon)
    }

    fn free(&mut self, block: Block) {
        self.0.deflate(block, Backing::Backed);
    }

    fn free_unbacked(&mut self, block: Block) {
        self.0.deflate(block, Backing::Unbacked);
    }
}

/// A host that refuses one entry in `refuses`, or none for 0.
struct Host {
    target: FrameCount,
    refuses: u64,
    answered: u64,
    /// In huge frames.
    initial_balloon: Range<u64>,
}

impl Host {
    fn answer(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        for entry in entries {
            self.answered += 1;
            let is_refused = self.refuses > 0 && self.answered.is_multiple_of(self.refuses);
            entry.status = if is_refused { EntryStatus::HostFailed } else { EntryStatus::Done };
        }
        self.target()
    }
}

impl Monitor for Host {
    fn negotiate(&mut self) -> Option<Reply> {
        self.target()
    }

    fn enable_features(&mut self) {}

    fn reset(&mut self) -> Option<Reply> {
        self.target()
    }

    fn list(&mut self, _from: FrameNumber, entries: &mut [Entry; CAPACITY]) -> Option<Listed> {
        let blocks =
            self.initial_balloon.clone().map(|huge| Entry::pending(FrameNumber(huge * HUGE_FRAMES), HUGE_ORDER));
        let count = entries.iter_mut().zip(blocks).map(|(entry, block)| *entry = block).count();
        self.target().map(|reply| Listed { reply, count, next: None })
    }

    fn target(&mut self) -> Option<Reply> {
        Some(Reply { status: Status::Ok, target: self.target })
    }

    fn inflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries)
    }

    fn deflate(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_frame_is_in_one_place(
        initial in 0..=HUGE - 2,
        turns in vec((0..=TOTAL.0, 0_u64..2000, 0_usize..2000, 0_u64..6), 1..20)
    ) {
        let mut memory = GuestMemory(FrameAllocator::leaked(TOTAL, &[], KERNEL_FLOOR), 0);
        let extent = Extent { total: TOTAL, floor: FLOOR, end: FrameNumber(TOTAL.0) };
        let mut driver = Driver::new(PageList::leaked(to_usize(HUGE)), RateLimits::DEFAULT, extent, 0);
        let initial_balloon = HUGE - initial..HUGE;
        let mut host = Host { target: TOTAL, refuses: 0, answered: 0, initial_balloon };
        prop_assert!(driver.begin(&mut host, &mut memory));
        prop_assert_eq!((driver.balloon().0, driver.disputed()), (initial * HUGE_FRAMES, FrameCount::ZERO));
        let mut in_use = Vec::new();
        for (target, used, freed, refuses) in turns {
            (host.target, host.refuses) = (FrameCount(target), refuses);
            let kernel = || memory.0.allocate(BlockSize::Frame, Purpose::Kernel).map(Block::into_number);
            in_use.extend(core::iter::from_fn(kernel).take(to_usize(used)));
            for frame in in_use.drain(in_use.len().saturating_sub(freed)..) {
                memory.0.free(block(frame, BlockSize::Frame));
            }
            driver.refresh(&mut host, memory.1);
            for _ in 0..20 {
                match driver.step(&mut host, &mut memory) {
                    Next::Continue | Next::Rest => {}
                    Next::Wait { until_ns } => memory.1 = until_ns,
                    Next::Idle => break,
                }
            }
            memory.1 += SECOND_NS;
            prop_assert_eq!((driver.page_list().validate(), memory.0.validate()), (Ok(()), Ok(())));
            for frame in (0..TOTAL.0).map(FrameNumber) {
                prop_assert!(!(driver.page_list().contains_frame(frame) && memory.0.is_free(frame)), "{:?}: two places", frame);
            }
            let accounted = driver.balloon().0 + memory.0.statistics().free.0 + in_use.len() as u64;
            prop_assert_eq!(accounted, TOTAL.0, "frames were lost");
            prop_assert!(driver.size() >= FLOOR);
        }
    }
}
