//! The driver against hosts of every kind (honest, refusing, silent, lying about statuses,
//! resetting, with another target at every step), and in guests of every kind.

mod hosts;
mod inflate;
mod properties;
mod session;
mod target;

use aerostat_abi::units::{FrameCount, FrameNumber, HUGE_FRAMES};
use proptest::prop_assert;
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;

use super::{Driver, Extent, Next};
use crate::rate::RateLimits;
use crate::testing::{Clock, FrameSet, Host, TestMemory};

const HUGE: u64 = 12;
const TOTAL: FrameCount = FrameCount(HUGE * HUGE_FRAMES);
/// The guest's own floor, which the driver keeps.
const FLOOR: FrameCount = FrameCount(2 * HUGE_FRAMES);
/// What the allocator keeps for the kernel.
const KERNEL_FLOOR: FrameCount = FrameCount(100);
const SECOND_NS: u64 = 1_000_000_000;

/// A guest of [`TOTAL`] frames, its driver, its host, and a clock.
struct Fixture {
    driver: Driver<FrameSet>,
    memory: TestMemory,
    host: Host,
    clock: Clock,
}

impl Fixture {
    /// A session has begun; the target is not known to be another yet than what the guest has.
    fn new(target: u64) -> Self {
        let mut fixture = Self::with(TOTAL, RateLimits::DEFAULT);
        assert!(fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
        fixture.host.calls = 0;
        fixture.host.target = FrameCount(target);
        fixture
    }

    fn with(total: FrameCount, limits: RateLimits) -> Self {
        let clock = Clock::default();
        let extent = Extent { total, floor: FLOOR, end: FrameNumber(total.0) };
        Self {
            driver: Driver::new(FrameSet::empty(total), limits, extent, 0),
            memory: TestMemory::new(total, KERNEL_FLOOR, clock.clone()),
            host: Host::new(total, total.0, clock.clone()),
            clock,
        }
    }

    fn refresh(&mut self) {
        self.driver.refresh(&mut self.host, self.clock.now_ns());
    }

    fn step(&mut self) -> Next {
        self.driver.step(&mut self.host, &mut self.memory)
    }

    fn balloon(&self) -> u64 {
        self.driver.balloon().0
    }

    fn set_target(&mut self, target: u64) {
        self.host.target = FrameCount(target);
        self.refresh();
    }

    /// Steps, and waits where the driver says so, until it is idle or `patience_ns` have passed;
    /// returns what it said last.
    fn run(&mut self, patience_ns: u64) -> Next {
        let deadline_ns = self.clock.now_ns() + patience_ns;
        for _ in 0..10_000 {
            match self.step() {
                Next::Continue | Next::Rest => {}
                Next::Wait { until_ns } if until_ns <= deadline_ns => self.clock.wait_until(until_ns),
                next => return next,
            }
        }
        panic!("the driver spins");
    }

    /// Every frame is in one place, and both sides agree which are in the balloon.
    fn check(&self) -> Result<(), TestCaseError> {
        self.check_places()?;
        prop_assert_eq!(self.driver.page_list(), &self.host.ballooned);
        prop_assert_eq!(self.driver.size().0, TOTAL.0 - self.balloon());
        prop_assert!(self.driver.size() >= FLOOR);
        Ok(())
    }

    /// Every frame is in one place.
    fn check_places(&self) -> Result<(), TestCaseError> {
        let mut all = self.memory.free.clone();
        self.memory.in_use.iter().for_each(|block| all.put(block));
        (0..TOTAL.0).filter(|frame| self.driver.page_list().contains(*frame)).for_each(|frame| all.insert(frame));
        prop_assert_eq!(all.len(), TOTAL, "frames were lost");
        Ok(())
    }
}
