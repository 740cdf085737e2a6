//! Inflating: which memory goes, how fast, and when not.

use std::vec::Vec;

use aerostat_abi::units::{BlockSize, FrameCount, HUGE_FRAMES};

use super::{FLOOR, Fixture, KERNEL_FLOOR, SECOND_NS, TOTAL};
use crate::driver::Next;
use crate::pace::PAUSE_GOAL_NS;
use crate::rate::RateLimits;
use crate::sides::{Block as _, Memory as _, PageList};
use crate::state::StallReason;

#[test]
fn whole_huge_frames_are_one_entry_each() {
    let mut fixture = Fixture::new(TOTAL.0 - 3 * HUGE_FRAMES - 2);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.host.calls, 3, "one for the target, one for each size");
    let mut orders = Vec::new();
    while let Some(block) = PageList::remove(&mut fixture.driver.page_list, FrameCount(HUGE_FRAMES)) {
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
fn the_driver_is_as_fast_as_a_fast_host() {
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
fn a_step_that_finds_too_little_inflates_it_and_waits() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(TOTAL.0 - KERNEL_FLOOR.0 - 10);
    fixture.refresh();
    assert!(matches!(fixture.step(), Next::Wait { .. }));
    assert_eq!((fixture.balloon(), fixture.driver.stall_reason()), (10, Some(StallReason::NoMemory)));
    assert_eq!(fixture.driver.metrics().allocation_failures, 1);
    fixture.check().unwrap();
}

/// A guest that has no memory left to inflate: pauses grow to about a second, and every pause is
/// followed by one attempt.
#[test]
fn a_driver_that_finds_no_memory_waits_longer_each_time() {
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
    fixture.driver.note_freed_memory();
    assert_eq!(fixture.run(SECOND_NS / 50), Next::Idle, "and goes on as soon as there is more");
    assert!(fixture.driver.frames_per_s() > FrameCount::from_mib(2).0);
    fixture.check().unwrap();
}

#[test]
fn pages_are_evicted_where_no_frame_is_free() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.memory.use_frames(8 * HUGE_FRAMES);
    fixture.memory.can_swap = true;
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.driver.size(), FLOOR);
    fixture.check().unwrap();
}

#[test]
fn evicted_memory_is_inflated_in_whole_huge_frames() {
    let mut fixture = Fixture::new(TOTAL.0 - 8 * HUGE_FRAMES);
    fixture.memory.use_frames(TOTAL.0);
    (fixture.memory.can_swap, fixture.memory.room_ns) = (true, 500_000);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!(fixture.balloon(), 8 * HUGE_FRAMES);
    assert_eq!((fixture.host.entries, fixture.driver.metrics().assembled), (8, 8));
    fixture.check().unwrap();
}

#[test]
fn single_frames_are_inflated_where_eviction_makes_no_huge_frame_whole() {
    let mut fixture = Fixture::new(TOTAL.0 - 4 * HUGE_FRAMES);
    fixture.memory.use_frames(TOTAL.0);
    (fixture.memory.can_swap, fixture.memory.is_scattered) = (true, true);
    fixture.refresh();
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    assert_eq!((fixture.balloon(), fixture.driver.metrics().assembled), (4 * HUGE_FRAMES, 0));
    fixture.check().unwrap();
}

#[test]
fn nothing_is_evicted_for_a_huge_frame_while_a_thread_waits() {
    let mut fixture = Fixture::new(TOTAL.0 - 8 * HUGE_FRAMES);
    fixture.memory.use_frames(TOTAL.0);
    (fixture.memory.can_swap, fixture.memory.room_ns) = (true, 1_500_000);
    fixture.refresh();
    assert_eq!(fixture.step(), Next::Rest, "one call that evicts fits a burst");
    let in_use = fixture.memory.in_use.len();
    fixture.memory.has_waiters = true;
    assert!(matches!(fixture.step(), Next::Wait { .. }));
    assert_eq!((fixture.memory.in_use.len(), fixture.balloon()), (in_use, 0));
}

#[test]
fn nothing_is_evicted_from_a_thrashing_guest() {
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
fn nothing_is_inflated_while_a_thread_waits_for_memory() {
    let mut fixture = Fixture::new(FLOOR.0);
    fixture.refresh();
    fixture.memory.has_waiters = true;
    let held = fixture.step();
    assert!(matches!(held, Next::Wait { .. }));
    assert_eq!((fixture.balloon(), fixture.driver.stall_reason()), (0, Some(StallReason::GuestWaiting)));
    fixture.memory.has_waiters = false;
    fixture.clock.spend(1);
    assert_eq!((fixture.step(), fixture.balloon()), (held, 0), "nor a moment later");
    assert_eq!(fixture.run(SECOND_NS), Next::Idle);
    fixture.memory.has_waiters = true;
    fixture.set_target(TOTAL.0);
    assert_eq!((fixture.run(0), fixture.balloon()), (Next::Idle, 0), "what the host grants comes at once");
}

#[test]
fn bursts_keep_the_pause_goal_on_a_slow_host() {
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
fn huge_frames_are_compacted_where_that_is_cheaper() {
    for (move_ns, compacted) in [(Some(3000), 3), (Some(50_000), 1), (None, 0)] {
        let mut fixture = fragmented();
        fixture.memory.move_ns = move_ns;
        (fixture.host.huge_ns, fixture.host.frame_ns) = (7000, 400);
        assert_eq!(fixture.run(SECOND_NS), Next::Idle);
        assert_eq!(fixture.driver.metrics().compacted, compacted, "at {move_ns:?} ns a page");
        fixture.check().unwrap();
    }
}
