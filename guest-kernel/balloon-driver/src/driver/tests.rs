//! The driver against hosts of every kind: honest, refusing, silent, lying about statuses, changing their mind at every step.

extern crate std;

use std::collections::BTreeSet;
use std::vec::Vec;

use aerostat_abi::batch::{Entry, EntryStatus};
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES, to_usize};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, prop_assert_ne, prop_oneof, proptest};

use super::{Driver, Next};
use crate::rate::{Rate, RateLimits};
use crate::sides::{Block as _, Ledger, Memory, Monitor, Reply};
use crate::testing::{FrameBook, TestBlock, TestMemory};

const HUGE: u64 = 12;
const TOTAL: FrameCount = FrameCount(HUGE * HUGE_FRAMES);
/// The guest's own floor, which the driver keeps.
const FLOOR: FrameCount = FrameCount(2 * HUGE_FRAMES);
/// What the allocator keeps for the kernel.
const KERNEL_FLOOR: FrameCount = FrameCount(100);
const SECOND_NS: u64 = 1_000_000_000;

/// How a host treats batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Honest,
    /// Every entry is refused.
    Refuses(EntryStatus),
    /// Entries whose block begins at a frame that a hash selects are refused.
    RefusesSome(u64),
    /// The reply is fine, the entries stay as they were.
    Forgets,
    /// Nobody answers, or with garbage.
    Silent,
    /// All entries say done, and the call as a whole says no.
    Contradicts(Status),
}

struct Host {
    target: FrameCount,
    mood: Mood,
    /// Frames that the host said it has.
    given: BTreeSet<u64>,
    calls: u64,
}

impl Host {
    fn new(target: u64) -> Self {
        Self { target: FrameCount(target), mood: Mood::Honest, given: BTreeSet::new(), calls: 0 }
    }

    /// Answers a batch; `carry_out` moves the frames of an entry and says whether they were where they should be.
    fn answer(&mut self, entries: &mut [Entry], carry_out: impl Fn(&mut BTreeSet<u64>, u64) -> bool) -> Option<Reply> {
        self.calls += 1;
        assert!(!entries.is_empty() && entries.len() <= aerostat_abi::batch::CAPACITY);
        for entry in entries.iter_mut() {
            assert_eq!(entry.status, EntryStatus::Pending, "as the driver writes it");
            assert!(entry.frame.is_aligned(entry.order) && entry.frame.0 + entry.count().0 <= TOTAL.0);
            entry.status = match self.mood {
                Mood::Honest | Mood::Contradicts(_) => EntryStatus::Done,
                Mood::Refuses(status) => status,
                Mood::RefusesSome(seed) if is_selected(entry.frame, seed) => EntryStatus::Protected,
                Mood::RefusesSome(_) => EntryStatus::Done,
                Mood::Forgets | Mood::Silent => EntryStatus::Pending,
            };
            if entry.status == EntryStatus::Done && !matches!(self.mood, Mood::Contradicts(_)) {
                for frame in entry.frame.0..entry.frame.0 + entry.count().0 {
                    assert!(carry_out(&mut self.given, frame), "frame {frame} is not where the driver says");
                }
            }
        }
        let status = if let Mood::Contradicts(status) = self.mood { status } else { Status::Ok };
        (self.mood != Mood::Silent).then_some(Reply { status, target: self.target })
    }
}

fn is_selected(frame: FrameNumber, seed: u64) -> bool {
    (frame.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 == 0
}

impl Monitor for Host {
    fn target(&mut self) -> Option<Reply> {
        (self.mood != Mood::Silent).then_some(Reply { status: Status::Ok, target: self.target })
    }

    fn give(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries, |given, frame| given.insert(frame))
    }

    fn take(&mut self, entries: &mut [Entry]) -> Option<Reply> {
        self.answer(entries, |given, frame| given.remove(&frame))
    }
}

/// A guest of [`TOTAL`] frames, its driver, its host, and a clock.
struct Fixture {
    driver: Driver<FrameBook>,
    memory: TestMemory,
    host: Host,
    now: u64,
    /// What the rest of the guest uses.
    in_use: Vec<TestBlock>,
}

impl Fixture {
    fn new(target: u64) -> Self {
        let now = 0;
        let rate = Rate::new(RateLimits::DEFAULT, now);
        let driver = Driver::new(FrameBook::empty(TOTAL), rate, TOTAL, FLOOR);
        let memory = TestMemory::new(TOTAL, KERNEL_FLOOR);
        Self { driver, memory, host: Host::new(target), now, in_use: Vec::new() }
    }

    fn refresh(&mut self) {
        self.driver.refresh(&mut self.host);
    }

    fn step(&mut self) -> Next {
        self.driver.step(&mut self.host, &mut self.memory, self.now)
    }

    fn balloon(&self) -> u64 {
        self.driver.balloon().0
    }

    fn wait_until(&mut self, moment: u64) {
        self.now = self.now.max(moment);
    }

    fn set_target(&mut self, target: u64) {
        self.host.target = FrameCount(target);
        self.refresh();
    }

    /// Steps, and waits where the driver says so, until it is idle or `patience_ns` have passed; returns what it said last.
    fn run(&mut self, patience_ns: u64) -> Next {
        let deadline = self.now + patience_ns;
        for _ in 0..10_000 {
            match self.step() {
                Next::Continue => {}
                Next::Wait { until_ns: moment } if moment <= deadline => self.wait_until(moment),
                next => return next,
            }
        }
        panic!("the driver spins");
    }

    /// The guest uses `frames` frames more, as many as there are.
    fn use_frames(&mut self, frames: u64) {
        for _ in 0..frames {
            let Some(block) = self.memory.use_frame() else { break };
            self.in_use.push(block);
        }
    }

    fn end_use(&mut self, frames: u64) {
        let kept = self.in_use.len().saturating_sub(to_usize(frames));
        for block in self.in_use.drain(kept..) {
            self.memory.free(block);
        }
    }

    /// Every frame is in one place, and both sides agree which are in the balloon.
    fn check(&self) -> Result<(), TestCaseError> {
        let driver = &self.driver;
        prop_assert_eq!(driver.balloon(), FrameCount(self.host.given.len() as u64));
        for frame in 0..TOTAL.0 {
            let is_ballooned = driver.ledger.contains(frame);
            prop_assert_eq!(is_ballooned, self.host.given.contains(&frame));
            prop_assert!(!(is_ballooned && self.memory.free.contains(frame)), "frame {} is in two places", frame);
        }
        let accounted = driver.balloon().0 + self.memory.free.len().0 + self.in_use.len() as u64;
        prop_assert_eq!(accounted, TOTAL.0, "frames were lost");
        prop_assert_eq!(driver.size().0, TOTAL.0 - driver.balloon().0);
        prop_assert!(driver.size() >= FLOOR);
        Ok(())
    }
}

#[test]
fn a_driver_without_a_target_keeps_what_it_has() {
    let mut fixture = Fixture::new(FLOOR.0);
    assert_eq!(fixture.step(), Next::Idle);
    fixture.host.mood = Mood::Silent;
    fixture.refresh();
    assert_eq!((fixture.step(), fixture.host.calls), (Next::Idle, 0));
}

#[test]
fn targets_beyond_reason_are_bounded() {
    let mut fixture = Fixture::new(0);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.driver.size(), FLOOR);
    fixture.set_target(u64::MAX);
    assert_eq!(fixture.run(0), Next::Idle);
    assert_eq!(fixture.driver.size(), TOTAL);
    fixture.check().unwrap();
}

#[test]
fn whole_huge_frames_travel_as_one_entry() {
    let mut fixture = Fixture::new(TOTAL.0 - 3 * HUGE_FRAMES - 2);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    let mut orders = Vec::new();
    while let Some(block) = Ledger::take(&mut fixture.driver.ledger, FrameCount(HUGE_FRAMES)) {
        orders.push(block.size());
    }
    assert_eq!(orders, [BlockSize::Huge, BlockSize::Huge, BlockSize::Huge, BlockSize::Frame, BlockSize::Frame]);
}

#[test]
fn inflating_keeps_to_the_rate() {
    let mut fixture = Fixture::new(FLOOR.0);
    let limits = RateLimits { min: HUGE_FRAMES, max: HUGE_FRAMES, increase: 0, divisor: 2 };
    fixture.driver.rate = Rate::new(limits, fixture.now);
    fixture.refresh();
    assert!(matches!(fixture.run(0), Next::Wait { .. }));
    assert_eq!(fixture.balloon(), HUGE_FRAMES, "what it may do at once");
    for seconds in 1..5 {
        fixture.run(SECOND_NS);
        assert_eq!(fixture.balloon(), (1 + seconds) * HUGE_FRAMES, "one huge frame a second");
    }
}

#[test]
fn a_step_that_runs_dry_gives_what_it_found_and_waits() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.use_frames(TOTAL.0 - KERNEL_FLOOR.0 - 10);
    fixture.refresh();
    assert!(matches!(fixture.step(), Next::Wait { .. }));
    assert_eq!(fixture.balloon(), 10);
    fixture.check().unwrap();
}

#[test]
fn a_reply_brings_the_new_target() {
    let mut fixture = Fixture::new(TOTAL.0 - 4 * HUGE_FRAMES);
    fixture.refresh();
    fixture.host.target = TOTAL;
    assert_eq!(fixture.step(), Next::Continue);
    assert!(fixture.balloon() > 0);
    assert_eq!(fixture.run(0), Next::Idle, "it turns round without being asked again");
    assert_eq!(fixture.balloon(), 0);
}

/// A guest that has nothing left to give: pauses grow to about a second, and every pause is followed by one attempt.
#[test]
fn a_driver_that_finds_no_memory_waits_longer_and_longer() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.use_frames(8 * HUGE_FRAMES);
    fixture.refresh();
    let mut pauses = Vec::new();
    while fixture.now < 60 * SECOND_NS {
        match fixture.step() {
            Next::Continue => pauses.clear(),
            Next::Wait { until_ns: moment } => {
                assert!(moment > fixture.now, "waiting for now is spinning");
                pauses.push(moment - fixture.now);
                fixture.wait_until(moment);
            }
            Next::Idle => panic!("the target is not reached"),
        }
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(*pauses.last().unwrap(), SECOND_NS);
    assert!(pauses.len() < 100, "{} steps in a minute", pauses.len());
    assert_eq!(fixture.balloon(), TOTAL.0 - 8 * HUGE_FRAMES - KERNEL_FLOOR.0, "it has what there was");

    fixture.end_use(7 * HUGE_FRAMES);
    assert_eq!(fixture.run(10 * SECOND_NS), Next::Idle, "and goes on when there is more");
    fixture.check().unwrap();
}

#[test]
fn a_host_that_takes_nothing_is_asked_less_and_less_often() {
    for mood in [
        Mood::Refuses(EntryStatus::HostFailed),
        Mood::Forgets,
        Mood::Silent,
        Mood::Contradicts(Status::BadPage),
        Mood::Contradicts(Status::NotGreeted),
    ] {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.host.mood = mood;
        assert!(matches!(fixture.run(60 * SECOND_NS), Next::Wait { .. }), "{mood:?}");
        assert!((60..100).contains(&fixture.host.calls), "{} calls in a minute: {mood:?}", fixture.host.calls);
        assert!(fixture.driver.refused_entries() > 0);
        fixture.check().unwrap();

        fixture.host.mood = Mood::Honest;
        fixture.run(5 * SECOND_NS);
        assert_eq!(fixture.driver.size(), FLOOR, "{mood:?}");
    }
}

#[test]
fn a_host_that_returns_nothing_is_asked_once() {
    for mood in
        [Mood::Refuses(EntryStatus::NotGranted), Mood::Forgets, Mood::Silent, Mood::Contradicts(Status::BadCount)]
    {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.run(SECOND_NS);
        fixture.set_target(TOTAL.0);
        fixture.host.mood = mood;
        let (balloon, calls) = (fixture.balloon(), fixture.host.calls);
        assert_eq!(fixture.run(60 * SECOND_NS), Next::Idle, "{mood:?}");
        assert_eq!((fixture.balloon(), fixture.host.calls), (balloon, calls + 1));
        fixture.check().unwrap();
    }
}

#[test]
fn what_comes_back_comes_at_once_and_fresh() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    for _ in 0..20 {
        fixture.driver.rate.failed();
    }
    fixture.set_target(TOTAL.0);
    assert_eq!(fixture.run(0), Next::Idle, "no rate applies");
    assert_eq!(fixture.driver.size(), TOTAL);
    assert_eq!(fixture.memory.came_back, TOTAL.0 - FLOOR.0, "as memory that the host does not back");
}

fn mood() -> impl Strategy<Value = Mood> {
    let refusals = [EntryStatus::Pending, EntryStatus::AlreadyGiven, EntryStatus::NotGiven, EntryStatus::HostFailed];
    let statuses = [Status::UnknownCommand, Status::NotGreeted, Status::BadPage, Status::BadArgument];
    prop_oneof![
        4 => Just(Mood::Honest),
        1 => (0..refusals.len()).prop_map(move |place| Mood::Refuses(refusals[place])),
        2 => (0_u64..1000).prop_map(Mood::RefusesSome),
        1 => Just(Mood::Forgets),
        1 => Just(Mood::Silent),
        1 => (0..statuses.len()).prop_map(move |place| Mood::Contradicts(statuses[place])),
    ]
}

/// Anything a register can hold, and often something sensible.
fn target() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..=TOTAL.0, 1 => 0_u64..=u64::MAX, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(FLOOR.0 - 1)]
}

#[derive(Clone, Debug)]
struct Turn {
    mood: Mood,
    target: u64,
    is_refreshed: bool,
    pause_ns: u64,
    used: u64,
    freed: u64,
}

fn turn() -> impl Strategy<Value = Turn> {
    let pause = prop_oneof![Just(0), 0..SECOND_NS / 1000, 0..2 * SECOND_NS];
    let use_of = || prop_oneof![2 => Just(0_u64), 1 => 0_u64..2000];
    (mood(), target(), proptest::bool::ANY, pause, use_of(), use_of()).prop_map(
        |(mood, target, is_refreshed, pause_ns, used, freed)| Turn {
            mood,
            target,
            is_refreshed,
            pause_ns,
            used,
            freed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_host_can_make_it_lose_a_frame_or_spin(turns in vec(turn(), 1..40)) {
        let mut fixture = Fixture::new(TOTAL.0);
        for turn in turns {
            fixture.host.mood = turn.mood;
            fixture.host.target = FrameCount(turn.target);
            fixture.use_frames(turn.used);
            fixture.end_use(turn.freed);
            if turn.is_refreshed {
                fixture.refresh();
            }
            let before = fixture.balloon();
            match fixture.step() {
                Next::Continue => prop_assert_ne!(fixture.balloon(), before, "a step that moved nothing wants another"),
                Next::Wait { until_ns: moment } => {
                    prop_assert!(moment > fixture.now, "waiting for now is spinning");
                    prop_assert!(moment <= fixture.now + SECOND_NS);
                }
                Next::Idle => {}
            }
            fixture.check()?;
            fixture.wait_until(fixture.now + turn.pause_ns);
        }
    }

    #[test]
    fn every_target_that_can_be_reached_is_reached(
        used in 0..TOTAL.0,
        targets in vec(0..=TOTAL.0, 1..6),
    ) {
        let mut fixture = Fixture::new(TOTAL.0);
        fixture.use_frames(used);
        let smallest = FLOOR.0.max(fixture.in_use.len() as u64 + KERNEL_FLOOR.0).min(TOTAL.0);
        for target in targets {
            let target = target.max(smallest);
            fixture.set_target(target);
            prop_assert_eq!(fixture.run(SECOND_NS), Next::Idle);
            prop_assert_eq!(fixture.driver.size(), FrameCount(target));
            fixture.check()?;
        }
    }

    #[test]
    fn a_target_within_the_floor_or_in_use_is_approached_as_far_as_can_be(used in 0..TOTAL.0, target in 0..TOTAL.0) {
        let mut fixture = Fixture::new(target);
        fixture.use_frames(used);
        fixture.refresh();
        fixture.run(30 * SECOND_NS);
        let smallest = FLOOR.0.max(used + KERNEL_FLOOR.0).max(target).min(TOTAL.0);
        prop_assert_eq!(fixture.driver.size(), FrameCount(smallest));
        fixture.check()?;
    }
}
