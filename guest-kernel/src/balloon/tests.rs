//! The driver over the kernel's own books: the frame allocator below it, the ledger behind it.

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use aerostat_balloon_driver::{Driver, Memory, Monitor, Next, Rate, RateLimits, Reply};
use proptest::collection::vec;
use proptest::test_runner::Config as ProptestConfig;
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::ledger::Ledger;
use crate::mm::block::Contents;
use crate::mm::{Block, BlockSize, FrameAllocator, Purpose};

const HUGE: u64 = 12;
const TOTAL: FrameCount = FrameCount(HUGE * HUGE_FRAMES);
const FLOOR: FrameCount = FrameCount(2 * HUGE_FRAMES);
const KERNEL_FLOOR: FrameCount = FrameCount(100);
const SECOND_NS: u64 = 1_000_000_000;

/// The kernel's allocator behind the driver's trait.
struct GuestMemory(FrameAllocator);

impl Memory for GuestMemory {
    type Block = Block;

    fn allocate(&mut self, size: BlockSize) -> Option<Block> {
        self.0.allocate(size, Purpose::Balloon)
    }

    fn free(&mut self, block: Block) {
        self.0.free(block);
    }

    fn free_unbacked(&mut self, block: Block) {
        self.0.free_unbacked(block);
    }
}

/// A host that refuses one entry in `refuses`, none for 0.
struct Host {
    target: FrameCount,
    refuses: u64,
    answered: u64,
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
    fn target(&mut self) -> Option<Reply> {
        Some(Reply { status: Status::Ok, target: self.target })
    }

    fn give(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries)
    }

    fn take(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_frame_is_in_one_place(turns in vec((0..=TOTAL.0, 0_u64..2000, 0_usize..2000, 0_u64..6), 1..20)) {
        let mut memory = GuestMemory(FrameAllocator::leaked(TOTAL, &[], KERNEL_FLOOR));
        let mut driver = Driver::new(Ledger::leaked(to_usize(HUGE)), Rate::new(RateLimits::DEFAULT, 0), TOTAL, FLOOR);
        let mut host = Host { target: TOTAL, refuses: 0, answered: 0 };
        let mut in_use = Vec::new();
        let mut now = 0;
        for (target, used, freed, refuses) in turns {
            (host.target, host.refuses) = (FrameCount(target), refuses);
            let kernel = || memory.0.allocate(BlockSize::Frame, Purpose::Kernel).map(Block::into_number);
            in_use.extend(core::iter::from_fn(kernel).take(to_usize(used)));
            for frame in in_use.drain(in_use.len().saturating_sub(freed)..) {
                memory.0.free(Block::from_number(frame, BlockSize::Frame, Contents::Unknown));
            }
            driver.refresh(&mut host);
            for _ in 0..20 {
                match driver.step(&mut host, &mut memory, now) {
                    Next::Continue => {}
                    Next::Wait { until_ns } => now = until_ns,
                    Next::Idle => break,
                }
            }
            now += SECOND_NS;
            prop_assert_eq!((driver.ledger().validate(), memory.0.validate()), (Ok(()), Ok(())));
            for frame in (0..TOTAL.0).map(FrameNumber) {
                prop_assert!(!(driver.ledger().contains(frame) && memory.0.is_free(frame)), "{:?}: two places", frame);
            }
            let accounted = driver.balloon().0 + memory.0.statistics().free.0 + in_use.len() as u64;
            prop_assert_eq!(accounted, TOTAL.0, "frames were lost");
            prop_assert!(driver.size() >= FLOOR);
        }
    }
}
