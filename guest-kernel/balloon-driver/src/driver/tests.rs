//! The driver against hosts of every kind: honest, refusing, silent, lying about statuses,
//! resetting, changing their mind at every step; and in guests of every kind.

extern crate std;

use std::vec::Vec;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;
use aerostat_abi::units::{BlockSize, FrameCount, FrameNumber, HUGE_FRAMES};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::test_runner::{Config as ProptestConfig, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, prop_assert_ne, prop_oneof, proptest};

use super::{Driver, Extent, Next};
use crate::pace::PAUSE_GOAL_NS;
use crate::rate::RateLimits;
use crate::session::Session;
use crate::sides::{Block as _, Memory, PageList};
use crate::state::{Failure, StallReason};
use crate::testing::{Clock, FrameBook, Host, Mood, TestMemory};

const HUGE: u64 = 12;
const TOTAL: FrameCount = FrameCount(HUGE * HUGE_FRAMES);
/// The guest's own floor, which the driver keeps.
const FLOOR: FrameCount = FrameCount(2 * HUGE_FRAMES);
/// What the allocator keeps for the kernel.
const KERNEL_FLOOR: FrameCount = FrameCount(100);
const SECOND_NS: u64 = 1_000_000_000;

/// A guest of [`TOTAL`] frames, its driver, its host, and a clock.
struct Fixture {
    driver: Driver<FrameBook>,
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
            driver: Driver::new(FrameBook::empty(total), limits, extent, 0),
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

#[test]
fn a_driver_without_a_target_keeps_what_it_has() {
    let mut fixture = Fixture::new(FLOOR.0);
    assert_eq!(fixture.step(), Next::Idle);
    fixture.host.mood = Mood::Silent;
    fixture.refresh();
    assert_eq!((fixture.step(), fixture.host.calls), (Next::Idle, 1));
    assert_eq!(fixture.driver.metrics().last_failure, Some(Failure::Silence));
}

#[test]
fn targets_beyond_reason_are_bounded() {
    let mut fixture = Fixture::new(0);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (FLOOR, Some(StallReason::Floor)));
    fixture.set_target(u64::MAX);
    assert_eq!(fixture.run(0), Next::Idle);
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (TOTAL, None));
    fixture.check().unwrap();
}

#[test]
fn whole_huge_frames_travel_as_one_entry() {
    let mut fixture = Fixture::new(TOTAL.0 - 3 * HUGE_FRAMES - 2);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.host.calls, 3, "one for the target, one for each size");
    let mut orders = Vec::new();
    while let Some(block) = PageList::take(&mut fixture.driver.page_list, FrameCount(HUGE_FRAMES)) {
        orders.push(block.size());
    }
    assert_eq!(orders, [BlockSize::Huge, BlockSize::Huge, BlockSize::Huge, BlockSize::Frame, BlockSize::Frame]);
}

#[test]
fn inflating_keeps_to_the_rate() {
    let mut fixture = Fixture::with(TOTAL, RateLimits::parse("2-2").unwrap());
    assert!(fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    fixture.set_target(FLOOR.0);
    assert!(matches!(fixture.run(0), Next::Wait { .. }));
    assert_eq!(fixture.balloon(), HUGE_FRAMES, "what it may do at once");
    assert_eq!(fixture.driver.stall_reason(), Some(StallReason::Rate));
    for seconds in 1..5 {
        fixture.run(SECOND_NS);
        assert_eq!(fixture.balloon(), (1 + seconds) * HUGE_FRAMES, "one huge frame a second");
    }
}

/// 3 GiB of 4 at 200 GiB/s, and the calls: nothing of the driver's own makes it slower.
#[test]
fn the_rate_does_not_slow_a_fast_host_down() {
    let total = FrameCount::from_mib(4096);
    let mut fixture = Fixture::with(total, RateLimits::DEFAULT);
    assert!(fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    (fixture.host.call_ns, fixture.host.huge_ns) = (25_000, 10_000);
    let before_ns = fixture.clock.now_ns();
    fixture.set_target(FrameCount::from_mib(1024).0);
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    let elapsed_ns = fixture.clock.now_ns() - before_ns;
    assert!(elapsed_ns < 16_000_000, "{elapsed_ns} ns");
    assert_eq!(fixture.driver.metrics().inflating_ns, elapsed_ns - 25_000, "all of it but one call for the target");
}

#[test]
fn a_step_that_runs_dry_gives_what_it_found_and_waits() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(TOTAL.0 - KERNEL_FLOOR.0 - 10);
    fixture.refresh();
    assert!(matches!(fixture.step(), Next::Wait { .. }));
    assert_eq!((fixture.balloon(), fixture.driver.stall_reason()), (10, Some(StallReason::NoMemory)));
    assert_eq!(fixture.driver.metrics().allocation_failures, 1);
    fixture.check().unwrap();
}

#[test]
fn a_reply_brings_the_new_target() {
    let mut fixture = Fixture::new(TOTAL.0 - 4 * HUGE_FRAMES);
    fixture.host.huge_ns = PAUSE_GOAL_NS; // a batch is a single huge frame after the first
    fixture.refresh();
    assert_eq!(fixture.step(), Next::Rest);
    fixture.host.target = TOTAL;
    let given = fixture.balloon();
    assert!(given < 4 * HUGE_FRAMES || fixture.driver.size() == fixture.driver.target());
    fixture.set_target(FLOOR.0);
    fixture.host.target = TOTAL;
    assert_eq!(fixture.step(), Next::Rest, "the batch that was under way");
    assert_eq!(fixture.driver.target(), TOTAL, "it heard of it in the reply");
    fixture.host.huge_ns = 0;
    assert_eq!(fixture.run(0), Next::Idle, "and turns round without being asked again");
    assert_eq!(fixture.balloon(), 0);
}

/// A guest that has nothing left to give: pauses grow to about a second, and every pause is
/// followed by one attempt.
#[test]
fn a_driver_that_finds_no_memory_waits_longer_and_longer() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(8 * HUGE_FRAMES);
    fixture.refresh();
    let mut pauses = Vec::new();
    while fixture.clock.now_ns() < 60 * SECOND_NS {
        match fixture.step() {
            Next::Continue | Next::Rest => pauses.clear(),
            Next::Wait { until_ns } => {
                assert!(until_ns > fixture.clock.now_ns(), "waiting for now is spinning");
                pauses.push(until_ns - fixture.clock.now_ns());
                fixture.clock.wait_until(until_ns);
            }
            Next::Idle => panic!("the target is not reached"),
        }
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(*pauses.last().unwrap(), SECOND_NS);
    assert!(pauses.len() < 100, "{} steps in a minute", pauses.len());
    assert_eq!(fixture.balloon(), TOTAL.0 - 8 * HUGE_FRAMES - KERNEL_FLOOR.0, "it has what there was");
    assert!(fixture.driver.wants_memory());
    assert_eq!(fixture.driver.frames_per_s(), FrameCount::from_mib(2).0, "as slow as it can be");

    fixture.memory.end_use(7 * HUGE_FRAMES);
    fixture.driver.memory_came_free();
    assert_eq!(fixture.run(SECOND_NS / 50), Next::Idle, "and goes on as soon as there is more");
    assert!(fixture.driver.frames_per_s() > FrameCount::from_mib(2).0);
    fixture.check().unwrap();
}

#[test]
fn a_guest_that_can_make_room_is_asked_to() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(8 * HUGE_FRAMES);
    fixture.memory.can_swap = true;
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.driver.size(), FLOOR);
    fixture.check().unwrap();
}

#[test]
fn a_thrashing_guest_is_left_alone() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(8 * HUGE_FRAMES);
    (fixture.memory.can_swap, fixture.memory.is_thrashing) = (true, true);
    fixture.refresh();
    fixture.run(10 * SECOND_NS);
    assert_eq!(fixture.driver.stall_reason(), Some(StallReason::Thrashing));
    assert_eq!(fixture.memory.in_use.len() as u64, 8 * HUGE_FRAMES);
    fixture.memory.is_thrashing = false;
    assert_eq!(fixture.run(2 * SECOND_NS), Next::Idle);
}

#[test]
fn nothing_is_taken_from_a_guest_in_which_somebody_waits() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.memory.is_short = true;
    let held = fixture.step();
    assert!(matches!(held, Next::Wait { .. }));
    assert_eq!((fixture.balloon(), fixture.driver.stall_reason()), (0, Some(StallReason::GuestWaiting)));
    fixture.memory.is_short = false;
    fixture.clock.spend(1);
    assert_eq!((fixture.step(), fixture.balloon()), (held, 0), "nor a moment later");
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    fixture.memory.is_short = true;
    fixture.set_target(TOTAL.0);
    assert_eq!((fixture.run(0), fixture.balloon()), (Next::Idle, 0), "what the host grants comes at once");
}

#[test]
fn bursts_are_as_long_as_the_goal_allows_on_a_slow_host() {
    let mut fixture = Fixture::new(FLOOR.0);
    (fixture.host.call_ns, fixture.host.huge_ns, fixture.host.frame_ns) = (25_000, 400_000, 10_000);
    (fixture.memory.can_swap, fixture.memory.room_ns) = (true, 500_000);
    fixture.memory.use_frames(7 * HUGE_FRAMES);
    fixture.refresh();
    let (mut burst_ns, mut bursts) = (0, Vec::new());
    loop {
        let before_ns = fixture.clock.now_ns();
        let next = fixture.step();
        burst_ns += fixture.clock.now_ns() - before_ns;
        if next != Next::Continue {
            bursts.push(core::mem::take(&mut burst_ns));
        }
        match next {
            Next::Idle => break,
            Next::Wait { until_ns } => fixture.clock.wait_until(until_ns),
            Next::Continue | Next::Rest => {}
        }
    }
    let too_long = bursts.iter().filter(|burst| **burst > PAUSE_GOAL_NS * 3 / 2).count();
    assert!(too_long <= 4, "{bursts:?}: only while it does not know the host");
    assert!(bursts.len() > 5);
    fixture.check().unwrap();
}

/// Every other frame is in use: no huge frame is whole.
fn fragmented() -> Fixture {
    let mut fixture = Fixture::new(TOTAL.0 - 3 * HUGE_FRAMES);
    fixture.memory.use_frames(TOTAL.0);
    let (odd, even): (Vec<_>, Vec<_>) =
        fixture.memory.in_use.drain(..).partition(|block| !block.first().0.is_multiple_of(2));
    odd.into_iter().for_each(|block| fixture.memory.free(block));
    fixture.memory.in_use = even;
    fixture.refresh();
    fixture
}

#[test]
fn pages_are_moved_together_where_that_is_cheaper() {
    for (move_ns, compacted) in [(Some(3000), 3), (Some(50_000), 1), (None, 0)] {
        let mut fixture = fragmented();
        fixture.memory.move_ns = move_ns;
        (fixture.host.huge_ns, fixture.host.frame_ns) = (7000, 400);
        assert_eq!(fixture.run(SECOND_NS), Next::Idle);
        assert_eq!(fixture.driver.metrics().compacted, compacted, "at {move_ns:?} ns a page");
        fixture.check().unwrap();
    }
}

/// The number of calls in a minute in which memory seems to come free and the target changes every
/// millisecond.
fn calls_in_a_minute_of_tumult(fixture: &mut Fixture) -> u64 {
    let before = fixture.host.calls;
    for tick in 0..60_000_u64 {
        fixture.clock.wait_until(tick * 1_000_000);
        fixture.driver.memory_came_free();
        fixture.host.target = FrameCount(FLOOR.0 + tick % 2);
        for _ in 0..100 {
            match fixture.step() {
                Next::Continue | Next::Rest => {}
                Next::Wait { .. } | Next::Idle => break,
            }
        }
    }
    fixture.host.calls - before
}

#[test]
fn a_host_that_takes_nothing_is_asked_less_and_less_often() {
    for mood in
        [Mood::Refuses(EntryStatus::HostFailed), Mood::Forgets, Mood::Silent, Mood::Contradicts(Status::BadPage)]
    {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.host.mood = mood;
        assert!(matches!(fixture.run(60 * SECOND_NS), Next::Wait { .. }), "{mood:?}");
        assert!((60..100).contains(&fixture.host.calls), "{} calls in a minute: {mood:?}", fixture.host.calls);
        assert!(fixture.driver.refused_entries() > 0 && fixture.driver.metrics().last_failure.is_some());
        let expected = if mood == Mood::Silent { StallReason::HostSilent } else { StallReason::Refused };
        assert_eq!(fixture.driver.stall_reason(), Some(expected));
        fixture.check().unwrap();
        let calls = calls_in_a_minute_of_tumult(&mut fixture);
        assert!(calls <= 60 * 110, "{calls} calls in a minute of tumult: {mood:?}");

        (fixture.host.mood, fixture.host.target) = (Mood::Honest, FLOOR);
        fixture.run(5 * SECOND_NS);
        assert_eq!(fixture.driver.size(), FLOOR, "{mood:?}");
    }
}

#[test]
fn a_host_that_returns_nothing_is_asked_less_and_less_often() {
    for mood in
        [Mood::Refuses(EntryStatus::NotGranted), Mood::Forgets, Mood::Silent, Mood::Contradicts(Status::BadCount)]
    {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.refresh();
        fixture.run(SECOND_NS);
        fixture.set_target(TOTAL.0);
        fixture.host.mood = mood;
        let (balloon, calls) = (fixture.balloon(), fixture.host.calls);
        assert!(matches!(fixture.run(60 * SECOND_NS), Next::Wait { .. }), "{mood:?}");
        assert_eq!(fixture.balloon(), balloon);
        assert!((60..100).contains(&(fixture.host.calls - calls)), "{mood:?}");
        fixture.check().unwrap();
    }
}

#[test]
fn a_host_that_has_changed_its_mind_does_not_count_as_refusing() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.set_target(TOTAL.0);
    fixture.host.target = FLOOR;
    assert_eq!((fixture.step(), fixture.step()), (Next::Continue, Next::Idle));
    assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (FLOOR, None));
    fixture.set_target(TOTAL.0);
    assert_eq!(
        (fixture.run(0), fixture.driver.size()),
        (Next::Idle, TOTAL),
        "and is asked at once when it changes it again"
    );
}

#[test]
fn a_host_that_cannot_be_talked_to_is_not_called_all_the_time() {
    for mood in [Mood::Resets, Mood::ListsNonsense(0), Mood::Contradicts(Status::NoSession), Mood::Silent] {
        let mut fixture = Fixture::new(FLOOR.0);
        fixture.host.orders_reset = true;
        fixture.refresh();
        fixture.host.mood = mood;
        let calls = calls_in_a_minute_of_tumult(&mut fixture);
        assert!(calls < 400, "{calls} calls in a minute: {mood:?}");
        assert!(fixture.driver.stall_reason().is_some());
        fixture.check().unwrap();
        fixture.host.mood = Mood::Honest;
        assert_eq!(fixture.run(2 * SECOND_NS), Next::Idle, "{mood:?}");
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

#[test]
fn the_initial_balloon_is_claimed() {
    let mut fixture = Fixture::with(TOTAL, RateLimits::DEFAULT);
    (4 * HUGE_FRAMES..TOTAL.0).for_each(|frame| fixture.host.ballooned.insert(frame));
    fixture.host.target = FrameCount(4 * HUGE_FRAMES);
    assert!(fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    assert_eq!((fixture.driver.size(), fixture.step()), (FrameCount(4 * HUGE_FRAMES), Next::Idle));
    fixture.check().unwrap();
    fixture.set_target(TOTAL.0);
    assert_eq!((fixture.run(0), fixture.balloon()), (Next::Idle, 0));
}

#[test]
fn a_monitor_that_does_not_answer_is_told_from_one_that_does() {
    let mut fixture = Fixture::with(TOTAL, RateLimits::DEFAULT);
    fixture.host.mood = Mood::Silent;
    assert!(!fixture.driver.begin(&mut fixture.host, &mut fixture.memory));
    assert_eq!(fixture.host.calls, 1);
}

#[test]
fn a_conversation_that_somebody_else_began_is_ended_first() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.driver.session = Session::Ended;
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.driver.size(), FLOOR);
    fixture.check().unwrap();
}

/// A batch that was carried out though its reply was lost: the host has frames that the guest uses.
#[test]
fn after_a_reset_both_sides_agree_on_one_balloon() {
    let mut fixture = Fixture::new(FLOOR.0 + 4 * HUGE_FRAMES);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.host.mood = Mood::LosesReplies;
    fixture.set_target(FLOOR.0);
    fixture.step();
    assert!(fixture.host.ballooned.len() > fixture.driver.balloon());
    fixture.memory.use_frames(3 * HUGE_FRAMES);
    fixture.host.mood = Mood::Honest;
    fixture.host.orders_reset = true;
    fixture.refresh();
    fixture.run(SECOND_NS);
    let strays = fixture.driver.strays().0;
    assert!(strays > 0, "the guest uses some of what the host counts as given");
    assert_eq!(fixture.driver.balloon().0 + strays, fixture.host.ballooned.len().0);
    fixture.check_places().unwrap();
    fixture.set_target(TOTAL.0);
    assert_eq!(fixture.run(3 * SECOND_NS), Next::Idle);
    assert_eq!((fixture.driver.strays(), fixture.driver.size()), (FrameCount::ZERO, TOTAL));
    fixture.check().unwrap();
}

/// The host takes offered memory without the guest, which notes it when it next looks; also at the
/// beginning of a session.
#[test]
fn what_the_monitor_takes_by_itself_is_in_the_balloon() {
    for orders_reset in [false, true] {
        let mut fixture = Fixture::new(TOTAL.0 - HUGE_FRAMES);
        let block = fixture.memory.free.take(BlockSize::Huge).unwrap();
        fixture.host.ballooned.put(&block);
        fixture.memory.reclaimed.push(block);
        fixture.host.orders_reset = orders_reset;
        assert_eq!((fixture.run(SECOND_NS), fixture.balloon()), (Next::Idle, HUGE_FRAMES));
        assert_eq!(fixture.driver.refused_entries(), 0, "it was not asked back for want of the new target");
        fixture.check().unwrap();
    }
}

#[test]
fn what_the_monitor_does_not_list_is_the_guests() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.run(SECOND_NS);
    fixture.host.mood = Mood::ListsNothing;
    fixture.host.target = TOTAL;
    fixture.host.orders_reset = true;
    fixture.refresh();
    assert_eq!((fixture.run(SECOND_NS), fixture.balloon()), (Next::Idle, 0));
    fixture.check().unwrap();
}

#[test]
fn a_monitor_that_lists_everything_does_not_get_it() {
    let mut fixture = Fixture::new(TOTAL.0);
    fixture.memory.use_frames(HUGE_FRAMES);
    fixture.host.mood = Mood::ListsAll;
    fixture.host.orders_reset = true;
    fixture.refresh();
    fixture.host.target = FrameCount(0);
    fixture.run(SECOND_NS);
    assert!(fixture.balloon() <= TOTAL.0 - FLOOR.0, "the floor is kept: {} frames", fixture.balloon());
    fixture.check_places().unwrap();
}

#[test]
fn a_list_that_is_nonsense_changes_nothing() {
    for kind in 0..8 {
        let mut fixture = Fixture::new(TOTAL.0 - HUGE_FRAMES);
        fixture.refresh();
        fixture.run(SECOND_NS);
        fixture.host.mood = Mood::ListsNonsense(kind);
        fixture.host.orders_reset = true;
        fixture.refresh();
        fixture.run(SECOND_NS);
        assert_eq!(fixture.driver.metrics().last_failure, Some(Failure::List), "{kind}");
        fixture.check().unwrap();
    }
}

fn mood() -> impl Strategy<Value = Mood> {
    let refusals =
        [EntryStatus::Pending, EntryStatus::AlreadyBallooned, EntryStatus::NotBallooned, EntryStatus::HostFailed];
    let statuses = [Status::UnknownCommand, Status::BadCount, Status::BadPage, Status::BadArgument];
    prop_oneof![
        4 => Just(Mood::Honest),
        1 => (0..refusals.len()).prop_map(move |place| Mood::Refuses(refusals[place])),
        2 => (0_u64..1000).prop_map(Mood::RefusesSome),
        1 => Just(Mood::Forgets),
        1 => Just(Mood::Silent),
        1 => (0..statuses.len()).prop_map(move |place| Mood::Contradicts(statuses[place])),
        1 => Just(Mood::Resets),
        1 => (0_u8..8).prop_map(Mood::ListsNonsense),
        1 => Just(Mood::ListsNothing),
    ]
}

/// Anything a register can hold, and often something sensible.
fn target() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..=TOTAL.0, 1 => 0_u64..=u64::MAX, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(FLOOR.0 - 1)]
}

/// What happens between two steps.
#[derive(Clone, Debug)]
struct Turn {
    mood: Mood,
    target: u64,
    is_refreshed: bool,
    orders_reset: bool,
    /// The guest: can swap, thrashes, waits for memory, can move pages.
    guest: [bool; 4],
    pause_ns: u64,
    used: u64,
    freed: u64,
}

fn turn() -> impl Strategy<Value = Turn> {
    let pause = prop_oneof![Just(0), 0..SECOND_NS / 1000, 0..2 * SECOND_NS];
    let use_of = || prop_oneof![2 => Just(0_u64), 1 => 0_u64..2000];
    let flags = (proptest::bool::ANY, proptest::bool::weighted(0.1));
    let guest = [
        proptest::bool::weighted(0.5),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.5),
    ];
    (mood(), target(), flags, guest, pause, use_of(), use_of()).prop_map(
        |(mood, target, (is_refreshed, orders_reset), guest, pause_ns, used, freed)| Turn {
            mood,
            target,
            is_refreshed,
            orders_reset,
            guest,
            pause_ns,
            used,
            freed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_host_can_make_it_lose_a_frame_or_spin(turns in vec(turn(), 1..40)) {
        let mut fixture = Fixture::new(TOTAL.0);
        for turn in turns {
            (fixture.host.mood, fixture.host.target) = (turn.mood, FrameCount(turn.target));
            fixture.host.orders_reset = turn.orders_reset;
            let [can_swap, is_thrashing, is_short, can_move] = turn.guest;
            let memory = &mut fixture.memory;
            (memory.can_swap, memory.is_thrashing, memory.is_short) = (can_swap, is_thrashing, is_short);
            memory.move_ns = can_move.then_some(500);
            memory.use_frames(turn.used);
            memory.end_use(turn.freed);
            if turn.is_refreshed {
                fixture.refresh();
            }
            let before = (fixture.balloon(), fixture.driver.session, fixture.driver.target());
            match fixture.step() {
                Next::Continue | Next::Rest => {
                    let after = (fixture.balloon(), fixture.driver.session, fixture.driver.target());
                    prop_assert_ne!(after, before, "a step that moved nothing wants another");
                }
                Next::Wait { until_ns } => {
                    prop_assert!(until_ns > fixture.clock.now_ns(), "waiting for now is spinning");
                    prop_assert!(until_ns <= fixture.clock.now_ns() + SECOND_NS);
                }
                Next::Idle => {}
            }
            fixture.check_places()?;
            let is_open = fixture.driver.session == Session::Open;
            if is_open && fixture.driver.strays() == FrameCount::ZERO {
                fixture.check()?;
            }
            fixture.clock.spend(turn.pause_ns);
        }
        // Whatever has happened, a host that is honest from now on gets its session and the guest
        // its memory.
        fixture.host.mood = Mood::Honest;
        fixture.host.target = TOTAL;
        fixture.refresh();
        fixture.run(5 * SECOND_NS);
        prop_assert_eq!((fixture.driver.size(), fixture.driver.stall_reason()), (TOTAL, None));
        fixture.check()?;
    }

    #[test]
    fn every_target_that_can_be_reached_is_reached(
        used in 0..TOTAL.0,
        targets in vec(0..=TOTAL.0, 1..6),
    ) {
        let mut fixture = Fixture::new(TOTAL.0);
        fixture.memory.use_frames(used);
        let smallest = FLOOR.0.max(fixture.memory.in_use.len() as u64 + KERNEL_FLOOR.0).min(TOTAL.0);
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
        fixture.memory.use_frames(used);
        fixture.refresh();
        fixture.run(30 * SECOND_NS);
        let smallest = FLOOR.0.max(used + KERNEL_FLOOR.0).max(target).min(TOTAL.0);
        prop_assert_eq!(fixture.driver.size(), FrameCount(smallest));
        fixture.check()?;
    }
}
