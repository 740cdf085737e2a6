//! Each rung, and the way back.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::{Cause, Enforcement, IgnoredTarget, Means, Others, Rung};
use crate::clock::Moment;
use crate::scheduler::accounted_usage::AccountedUsage;
use crate::scheduler::usage::{Acknowledgement, Control, GuestSample, Hints};

const TICK: Duration = Duration::from_millis(20);
const TARGET: u64 = 100;
const PAGE: Means = Means::Paging(IgnoredTarget::Page);

const fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// A guest of 356 MiB, asked for 256 of them.
struct Bench {
    enforcement: Enforcement,
    account: AccountedUsage,
    sample: GuestSample,
    others: Others,
    now: Moment,
}

impl Bench {
    fn new(means: Means, others: Others) -> Self {
        let mut account = AccountedUsage::new(mib(356));
        account.lower(mib(TARGET));
        let control = Control { means, could_run: TICK, ..Control::default() };
        let (size, resident) = (mib(356), mib(356));
        let sample = GuestSample { allowed: mib(TARGET), size, resident, hints: Hints::None, control };
        Self { enforcement: Enforcement::default(), account, sample, others, now: Moment::from_ns(1) }
    }

    fn rung(&self) -> Option<Rung> {
        self.enforcement.enforced().map(|enforced| enforced.rung)
    }

    /// Lets `ms` pass, in which the guest does `what` at each tick; returns the rungs that it was
    /// on.
    fn pass(&mut self, ms: u64, what: impl Fn(&mut GuestSample)) -> Vec<Rung> {
        let mut rungs = Vec::new();
        for _ in 0..ms / 20 {
            self.now = self.now.after(TICK);
            what(&mut self.sample);
            self.account.observe(&self.sample);
            self.enforcement.observe(&self.account, &self.sample.control, self.others, self.now);
            rungs.extend(self.rung());
        }
        rungs.dedup();
        rungs
    }
}

fn ignores(_: &mut GuestSample) {}

fn releases(sample: &mut GuestSample, frames: u64) {
    sample.size = sample.size.saturating_sub(FrameCount(frames)).max(mib(TARGET));
}

#[test]
fn a_guest_that_ignores_its_target_is_paged_soon_where_others_wait() {
    let mut bench = Bench::new(PAGE, Others::Wait);
    assert_eq!(bench.pass(180, ignores), [Rung::Asked]);
    let enforced = bench.enforcement.enforced().unwrap();
    assert_eq!((enforced.withheld, enforced.next), (mib(256), Some((Rung::Paging, TICK))));
    assert_eq!(bench.pass(20, ignores), [Rung::Paging]);
    assert_eq!(bench.pass(100_000, ignores), [Rung::Paging], "for as long as it does");
    assert!(bench.enforcement.is_certain());
    let enforced = bench.enforcement.enforced().unwrap();
    assert_eq!((enforced.next, enforced.cause), (None, Cause::Ignores));
}

#[test]
fn a_guest_whose_memory_no_other_waits_for_has_more_time() {
    let mut bench = Bench::new(PAGE, Others::Content);
    assert_eq!(bench.pass(9900, ignores), [Rung::Asked]);
    bench.others = Others::Wait;
    assert_eq!(bench.pass(20, ignores), [Rung::Paging], "it has had its time");
    let mut bench = Bench::new(PAGE, Others::Content);
    assert_eq!(bench.pass(10_100, ignores), [Rung::Asked, Rung::Paging]);
}

#[test]
fn steady_progress_is_enough_and_a_trickle_is_not() {
    let mut bench = Bench::new(PAGE, Others::Wait);
    // 16 MiB in 200 ms is a sixteenth of what it withholds.
    assert_eq!(bench.pass(4000, |sample| releases(sample, 512)), [Rung::Asked]);
    assert_eq!(bench.rung(), None, "it has followed");
    let mut bench = Bench::new(PAGE, Others::Wait);
    assert_eq!(bench.pass(400, |sample| releases(sample, 300)), [Rung::Asked, Rung::Paging]);
}

#[test]
fn time_in_which_the_guest_could_not_run_does_not_count() {
    let mut bench = Bench::new(PAGE, Others::Wait);
    bench.sample.control.could_run = Duration::ZERO;
    assert_eq!(bench.pass(60_000, ignores), [Rung::Asked]);
}

#[test]
fn a_guest_that_follows_is_free_again_and_begins_anew() {
    let mut bench = Bench::new(PAGE, Others::Wait);
    bench.pass(1000, ignores);
    assert_eq!(bench.pass(20, |sample| sample.size = mib(101)), [Rung::Paging], "a part is not enough");
    assert_eq!(bench.pass(20, |sample| sample.size = mib(TARGET)), []);
    assert!(!bench.enforcement.is_certain());
    assert_eq!(bench.pass(180, |sample| sample.size = mib(200)), [Rung::Asked]);
}

#[test]
fn less_than_a_huge_frame_is_no_reason() {
    let mut bench = Bench::new(PAGE, Others::Wait);
    assert_eq!(bench.pass(1000, |sample| sample.size = FrameCount(mib(TARGET).0 + 511)), []);
}

#[test]
fn the_policy_decides_what_follows() {
    for (rule, last) in [(IgnoredTarget::Pause, Rung::Paused), (IgnoredTarget::Kill, Rung::Ending)] {
        let mut bench = Bench::new(Means::Paging(rule), Others::Wait);
        assert_eq!(bench.pass(4900, ignores), [Rung::Asked, Rung::Paging]);
        assert_eq!(bench.pass(200, ignores), [Rung::Paging, last]);
        let mut bench = Bench::new(Means::Paging(rule), Others::Content);
        assert_eq!(bench.pass(30_100, ignores), [Rung::Asked, Rung::Paging, last]);
        let mut bench = Bench::new(Means::Process(rule), Others::Wait);
        assert_eq!(bench.pass(5100, ignores), [Rung::Asked, Rung::Squeezed, last]);
        assert_eq!(bench.enforcement.is_certain(), last == Rung::Ending, "a stopped machine keeps its memory");
    }
}

#[test]
fn a_paused_guest_goes_on_when_there_is_room_or_the_policy_is_another() {
    let mut bench = Bench::new(Means::Paging(IgnoredTarget::Pause), Others::Wait);
    bench.pass(6000, ignores);
    assert_eq!(bench.pass(60_000, ignores), [Rung::Paused]);
    bench.sample.control.means = PAGE;
    assert_eq!(bench.pass(400, ignores), [Rung::Paging], "its limit stays in force");
    let mut bench = Bench::new(Means::Paging(IgnoredTarget::Pause), Others::Wait);
    bench.pass(6000, ignores);
    bench.account.raise(mib(356));
    assert_eq!(bench.pass(20, ignores), []);
}

#[test]
fn a_process_that_does_not_answer_is_squeezed_and_ended() {
    let is_silent = |sample: &mut GuestSample| {
        sample.allowed = mib(356);
        sample.control.acknowledgement = Acknowledgement::Awaited;
    };
    let mut bench = Bench::new(PAGE, Others::Wait);
    assert_eq!(bench.pass(980, is_silent), [Rung::Asked, Rung::Paging]);
    assert_eq!(bench.pass(1980, is_silent), [Rung::Squeezed]);
    assert_eq!(bench.enforcement.enforced().unwrap().cause, Cause::DoesNotAnswer);
    assert_eq!(bench.pass(100, is_silent), [Rung::Squeezed, Rung::Ending]);
    let mut bench = Bench::new(PAGE, Others::Content);
    assert_eq!(*bench.pass(600_000, is_silent).last().unwrap(), Rung::Squeezed, "no other guest needs its memory");
    bench.sample.control.acknowledgement = Acknowledgement::Given;
    bench.sample.allowed = mib(TARGET);
    assert_eq!(bench.pass(20, ignores), [Rung::Paging]);
}

#[test]
fn a_process_that_keeps_no_limit_is_ended() {
    let lies = |sample: &mut GuestSample| sample.control.limit = Some(mib(TARGET));
    let mut bench = Bench::new(PAGE, Others::Wait);
    assert_eq!(bench.pass(3100, lies), [Rung::Asked, Rung::Paging, Rung::Squeezed, Rung::Ending]);
    assert_eq!(bench.enforcement.enforced().unwrap().cause, Cause::DoesNotKeepLimits);
    let mut bench = Bench::new(PAGE, Others::Wait);
    let pages = |sample: &mut GuestSample| {
        sample.control.limit = Some(mib(TARGET));
        sample.resident = FrameCount(sample.resident.0 - 128).max(mib(TARGET));
    };
    assert_eq!(bench.pass(30_000, pages), [Rung::Asked, Rung::Paging], "26 MiB/s is slow and no lie");
}

#[test]
fn a_machine_of_another_program_is_left_alone_or_paused() {
    let mut bench = Bench::new(Means::None, Others::Wait);
    assert_eq!(bench.pass(600_000, ignores), [Rung::Asked]);
    let mut bench = Bench::new(Means::Pause, Others::Wait);
    bench.sample.control.acknowledgement = Acknowledgement::Awaited;
    assert_eq!(bench.pass(600_000, ignores), [Rung::Asked, Rung::Paused]);
}
