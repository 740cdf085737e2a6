//! The supervisor with fake guests and a fake clock.

mod attached;
mod enforcement;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use aerostat_balloon_driver::RateLimits;

use super::fake::{FakeGuest, Lie, Machine, Manners};
use super::{Attention, EventKind, FleetStatus, GuestState, Launched, Outcome, Supervisor};
use crate::clock::Moment;
use crate::fleet::{GuestSpec, OveruseRule};
use crate::host::{EndReason, GuestEvent};
use crate::scheduler::Policy;

const TICK: Duration = Duration::from_millis(20);
const POOL: FrameCount = FrameCount::from_mib(512);

fn spec(name: &str) -> GuestSpec {
    GuestSpec::for_tests(name)
}

/// Admits a fake guest and has the supervisor take it over.
fn launch(supervisor: &mut Supervisor<FakeGuest>, spec: &GuestSpec, now: Moment) -> Arc<Machine> {
    let admission = supervisor.admit(spec).unwrap();
    let (machine, handle) = Machine::boot(spec.limits.max, admission.target(), Manners::Obliging);
    supervisor.launched(admission, Launched { handle, spawned: now }, now);
    machine
}

/// A supervisor with two fakes, and time.
struct Bench {
    supervisor: Supervisor<FakeGuest>,
    machines: Vec<Arc<Machine>>,
    now: Moment,
}

impl Bench {
    fn new() -> Self {
        Self::with_rule(OveruseRule::Kill)
    }

    fn with_rule(overuse: OveruseRule) -> Self {
        Self::with(|name| GuestSpec { overuse, ..spec(name) })
    }

    fn with(spec: impl Fn(&str) -> GuestSpec) -> Self {
        let now = Moment::from_ns(1_000_000);
        let mut bench = Self { supervisor: Supervisor::new(POOL, Policy::default(), now), machines: Vec::new(), now };
        for name in ["alpha", "beta"] {
            bench.machines.push(launch(&mut bench.supervisor, &spec(name), now));
        }
        bench
    }

    fn pass(&mut self, polls: usize) {
        for _ in 0..polls {
            self.now = self.now.after(TICK);
            self.machines.iter().for_each(|machine| machine.step(self.now));
            self.supervisor.read_events(self.now);
            self.supervisor.poll(self.now);
        }
    }

    fn status(&self) -> FleetStatus {
        self.supervisor.status(self.now)
    }

    /// Returns the events besides starts and targets.
    fn told(&mut self) -> Vec<String> {
        let events = self.supervisor.take_events().into_iter().map(|event| event.what);
        let is_told = |what: &EventKind| !matches!(what, EventKind::Started { .. } | EventKind::Target { .. });
        events.filter(is_told).map(|what| what.to_string()).collect()
    }

    fn needs(&self, mib: [u64; 2]) {
        self.machines.iter().zip(mib).for_each(|(machine, mib)| machine.need(FrameCount::from_mib(mib)));
    }
}

#[test]
fn a_process_is_limited_to_what_its_guest_may_have() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    for _ in 0..50 {
        bench.pass(1);
        for (machine, guest) in bench.machines.iter().zip(bench.status().guests) {
            let limit = machine.process_limit.get().expect("set at the first poll");
            assert!(limit >= guest.target && limit >= guest.size, "{}: {limit}", guest.name);
        }
    }
    let limit = |bench: &Bench, guest: usize| bench.machines[guest].process_limit.get().unwrap();
    let [large, small] = [limit(&bench, 0), limit(&bench, 1)];
    assert!(large >= FrameCount::from_mib(400) && small < FrameCount::from_mib(112), "{large}, {small}");

    // A target that a process may still act on keeps its limit up.
    bench.machines[0].acknowledges.set(Some(Epoch(1)));
    bench.needs([20, 400]);
    bench.pass(50);
    assert_eq!(limit(&bench, 0), large);
}

#[test]
fn a_guest_that_may_touch_its_balloon_may_have_what_is_free() {
    let mut bench = Bench::with_rule(OveruseRule::Warn);
    bench.needs([200, 20]);
    bench.pass(50);
    let free = bench.status().free;
    assert!(free > FrameCount::ZERO);
    let (limit, size) = (bench.machines[0].process_limit.get().unwrap(), bench.status().guests[0].size);
    assert_eq!(limit, size.saturating_add(free));
}

#[test]
fn memory_follows_need_from_guest_to_guest() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(50);
    assert!(bench.status().guests[0].size >= FrameCount::from_mib(400));
    assert_eq!(bench.status().moved, FrameCount::ZERO);

    bench.needs([20, 400]);
    bench.pass(50);
    let status = bench.status();
    assert!(status.guests[1].size >= FrameCount::from_mib(400));
    assert_eq!(status.guests[0].size, FrameCount::from_mib(64));
    let moved = status.moved.mib();
    assert!((300..=400).contains(&moved), "{moved} MiB moved");

    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.violations, 0);
    assert!(outcome.peak_resident <= POOL && outcome.peak_resident >= FrameCount::from_mib(420));
    assert_eq!(outcome.peak_physical, outcome.peak_resident, "it is not measured here");
    assert_eq!(outcome.guests[0].spawn_to_main, Some(Duration::from_millis(4)));
    assert_eq!(outcome.guests[0].app.map(|app| app.verified_bytes), Some(4096));
}

#[test]
fn a_guest_whose_balloon_the_host_paces_inflates_in_small_steps() {
    let rate = RateLimits::parse("10-100").unwrap();
    let mut bench = Bench::with(|name| GuestSpec { balloon_rate: Some(rate), ..spec(name) });
    bench.needs([400, 20]);
    bench.pass(50);
    let before = bench.status().guests[0].size;
    assert!(before >= FrameCount::from_mib(400), "it grows at once");
    bench.needs([20, 20]);
    bench.pass(65);
    let after = bench.status().guests[0].size;
    let inflated = before.saturating_sub(after).mib();
    assert!((50..=110).contains(&inflated), "{inflated} MiB inflated in a second, at 100 MiB/s");
    bench.needs([20, 400]);
    bench.pass(10);
    assert_eq!(bench.status().guests[0].size, FrameCount::from_mib(64), "a pool that is empty knows no rate");
    assert!(bench.status().guests[1].size >= FrameCount::from_mib(400));
    assert_eq!(bench.supervisor.into_outcome(bench.now).violations, 0);
}

#[test]
fn targets_that_fit_are_left_alone() {
    let mut bench = Bench::new();
    bench.needs([200, 100]);
    bench.pass(50);
    let doorbells = bench.machines[0].doorbells.get();
    bench.pass(50);
    assert_eq!(bench.machines[0].doorbells.get(), doorbells);
}

#[test]
fn waiting_for_memory_says_more_than_shrinking() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(50);
    bench.needs([400, 400]);
    bench.pass(1);
    let states = |bench: &Bench| bench.status().guests.iter().map(|guest| guest.state).collect::<Vec<_>>();
    assert_eq!(states(&bench)[1], GuestState::Waiting);
    assert!(bench.status().guests[1].wanted > FrameCount::from_mib(200));
    // The first one releases memory for the second, and then lacks it itself.
    bench.needs([512, 400]);
    bench.pass(3);
    assert_eq!(states(&bench), [GuestState::Waiting; 2]);
}

#[test]
fn states_follow_size_and_target() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(2);
    assert_eq!(bench.status().guests[0].state, GuestState::Growing);
    bench.pass(30);
    assert_eq!(bench.status().guests[0].state, GuestState::Running);
    bench.needs([20, 20]);
    bench.pass(18);
    assert_eq!(bench.status().guests[0].state, GuestState::Shrinking);
    bench.now = bench.now.after(Duration::from_secs(6));
    bench.supervisor.poll(bench.now);
    assert_eq!(bench.status().guests[0].state, GuestState::Silent);
}

#[test]
fn swap_is_shown_while_a_guest_runs_and_kept_afterwards() {
    let mut bench = Bench::new();
    bench.machines[0].swap(FrameCount(700));
    bench.pass(1);
    let [alpha, beta] = &bench.status().guests[..] else { panic!("two guests") };
    assert_eq!((alpha.swap.map(|swap| swap.on_disk), beta.swap), (Some(FrameCount(700)), None));
    bench.machines[0].swap(FrameCount(100));
    bench.pass(1);
    bench.machines[0].end(EndReason::Exited(GuestExit::Success));
    bench.pass(1);
    assert_eq!(bench.status().guests[0].swap, None);
    assert_eq!(bench.supervisor.into_outcome(bench.now).guests[0].swap.peak_on_disk, FrameCount(700));
}

#[test]
fn pressure_and_endings_ask_for_attention() {
    let mut bench = Bench::new();
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::None);
    bench.machines[1].say(GuestEvent::Pressure);
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::Needed);
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::None);
    bench.machines[0].say(GuestEvent::UseChanged);
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::Usual);
    for event in [GuestEvent::UseChanged, GuestEvent::Pressure, GuestEvent::UseChanged] {
        bench.machines[0].say(event);
    }
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::Needed, "the more urgent one counts");
    bench.machines[1].end(EndReason::Exited(GuestExit::Success));
    assert_eq!(bench.supervisor.read_events(bench.now), Attention::Needed);
}

#[test]
fn a_fleet_is_at_rest_while_nothing_changes_and_no_guest_waits() {
    let mut bench = Bench::new();
    bench.needs([200, 100]);
    bench.pass(1);
    assert!(!bench.supervisor.is_at_rest(), "targets change");
    bench.pass(50);
    assert!(bench.supervisor.is_at_rest());
    bench.needs([201, 103]);
    bench.pass(1);
    assert!(!bench.supervisor.is_at_rest(), "memory moves");
    bench.needs([900, 900]);
    bench.pass(200);
    assert!(!bench.supervisor.is_at_rest(), "both wait for more than there is");
}

#[test]
fn a_guest_that_is_killed_leaves_all_its_memory_to_the_others() {
    let mut bench = Bench::new();
    bench.needs([400, 400]);
    bench.pass(50);
    assert!(bench.status().guests[1].size <= FrameCount::from_mib(300));
    bench.machines[0].end(EndReason::Killed(9));
    bench.pass(50);
    let status = bench.status();
    assert!(status.guests[1].size >= FrameCount::from_mib(400));
    assert_eq!((status.guests[0].state, status.guests[0].target), (GuestState::Ended, FrameCount::ZERO));
    assert!(!bench.supervisor.is_over());
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert!(!outcome.is_success() && outcome.guests[1].is_success());
    assert_eq!(outcome.guests[0].app.map(|app| app.verified_bytes), Some(4096), "what it did before counts");
}

#[test]
fn a_guest_that_uses_memory_beyond_its_size_is_charged_and_ended() {
    let mut bench = Bench::new();
    bench.needs([16, 400]);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(248));
    bench.pass(5);
    let status = bench.status();
    assert_ne!(status.guests[0].state, GuestState::Ended, "a poll or two may be wrong");
    assert!(status.guests[1].target <= FrameCount::from_mib(512 - 264), "what it uses is not committed to others");
    bench.pass(50);
    assert_eq!(bench.status().guests[0].state, GuestState::Ended);
    assert!(bench.status().guests[1].size >= FrameCount::from_mib(400), "its memory is the other's");
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.violations, 0);
    assert_eq!(outcome.guests[0].ending.reason.to_string(), "used 200.0 MiB beyond its size");
    assert_eq!(outcome.guests[0].ending.details, ["size 64.0 MiB, target 64.0 MiB, resident 264.0 MiB"]);
    assert!(!outcome.guests[0].is_success() && outcome.guests[1].is_success());
}

/// A process may still act on what it has not acknowledged: that is granted to no other guest,
/// however small this one is.
#[test]
fn a_process_that_acknowledges_nothing_keeps_its_old_target() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(50);
    let old = bench.status().guests[0].target;
    bench.machines[0].acknowledges.set(Some(Epoch::FIRST));
    bench.needs([20, 400]);
    bench.pass(140);
    let status = bench.status();
    assert_eq!(status.guests[0].size, FrameCount::from_mib(64));
    assert!(status.guests[1].target <= POOL.saturating_sub(old));
    bench.machines[0].acknowledges.set(None);
    bench.pass(50);
    assert!(bench.status().guests[1].size >= FrameCount::from_mib(400));
}

#[test]
fn a_process_that_acknowledges_what_was_never_said_is_ended() {
    let mut bench = Bench::new();
    bench.machines[0].acknowledges.set(Some(Epoch(1000)));
    bench.pass(3);
    let outcome = bench.supervisor.into_outcome(bench.now);
    let reason = outcome.guests[0].ending.reason.to_string();
    assert_eq!(reason, "failed: its process acknowledged a target that was never set");
    assert!(outcome.guests[1].is_success());
}

#[test]
fn a_guest_may_be_warned_instead() {
    let mut bench = Bench::with_rule(OveruseRule::Warn);
    bench.needs([16, 16]);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(148));
    bench.pass(50);
    assert_eq!(bench.told(), ["alpha uses 100.0 MiB beyond its size"], "once, however long it lasts");
    for _ in 0..2 {
        bench.machines[0].use_beyond_size(FrameCount::ZERO);
        bench.pass(5);
        bench.machines[0].use_beyond_size(FrameCount::from_mib(248));
        bench.pass(50);
    }
    assert_eq!(bench.told(), [""; 0], "not so soon again");
    bench.machines[0].use_beyond_size(FrameCount::ZERO);
    bench.pass(500);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(148));
    bench.pass(50);
    assert_eq!(bench.told(), ["alpha uses 100.0 MiB beyond its size (3 times since this was last told)"]);
    let outcome = bench.supervisor.into_outcome(bench.now);
    let balloon = &outcome.guests[0].balloon;
    assert_eq!((balloon.overuse_episodes, balloon.peak_overuse), (4, FrameCount::from_mib(200)));
    assert!(outcome.guests[0].is_success());
}

#[test]
fn a_guest_may_lose_what_it_uses_beyond_its_size() {
    let mut bench = Bench::with_rule(OveruseRule::Cap);
    bench.needs([16, 16]);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(148));
    bench.pass(4);
    assert_eq!(bench.machines[0].reclaims.get(), 0);
    bench.pass(50);
    assert_eq!(bench.machines[0].reclaims.get(), 1, "that was enough");
    assert_eq!(bench.told(), ["alpha uses 100.0 MiB beyond its size, which is taken away again"]);
    assert_eq!(bench.status().guests[0].state, GuestState::Running);
}

/// Returns the other guest's size and the outcome beside a process that publishes this.
fn beside_a_liar(lie: Lie) -> (FrameCount, Outcome) {
    let mut bench = Bench::new();
    bench.needs([16, 400]);
    bench.pass(5);
    bench.machines[0].lie(lie);
    bench.pass(50);
    (bench.status().guests[1].size, bench.supervisor.into_outcome(bench.now))
}

#[test]
fn a_process_that_reports_what_can_not_be_is_ended() {
    let honest = FrameCount::from_mib(16);
    let everything = FrameCount(u64::MAX);
    for (size, said) in [
        (everything, &*format!("a size of {everything}, and it may have 64.0 MiB")),
        (FrameCount::from_mib(512), "a size of 512.0 MiB, and it may have 64.0 MiB"),
        (FrameCount::ZERO, "no size, after there was one"),
    ] {
        let (others_size, outcome) = beside_a_liar(Lie { size, resident: honest });
        assert!(others_size >= FrameCount::from_mib(400), "the other guest gets its memory, not {others_size}");
        assert_eq!(outcome.guests[0].ending.reason.to_string(), format!("failed: its process reported {said}"));
        assert!(!outcome.guests[0].is_success() && outcome.guests[1].is_success());
        assert_eq!(outcome.violations, 0);
    }
}

#[test]
fn a_size_that_was_granted_once_is_not_granted_for_ever() {
    let mut bench = Bench::new();
    bench.needs([400, 20]);
    bench.pass(50);
    bench.needs([20, 400]);
    bench.pass(50);
    assert_eq!(bench.status().guests[0].size, FrameCount::from_mib(64));
    bench.machines[0].lie(Lie { size: FrameCount::from_mib(400), resident: FrameCount::ZERO });
    bench.pass(2);
    let outcome = bench.supervisor.into_outcome(bench.now);
    let said = "failed: its process reported a size of 400.0 MiB, and it may have 64.0 MiB";
    assert_eq!(outcome.guests[0].ending.reason.to_string(), said);
}

#[test]
fn resident_memory_is_measured_and_not_believed() {
    let own_size = FrameCount::from_mib(64);
    let (others_size, outcome) = beside_a_liar(Lie { size: own_size, resident: FrameCount(u64::MAX) });
    assert!(others_size >= FrameCount::from_mib(400) && outcome.is_success() && outcome.peak_resident <= POOL);

    let mut bench = Bench::new();
    bench.machines[0].use_beyond_size(FrameCount::from_mib(200));
    bench.machines[0].lie(Lie { size: own_size, resident: FrameCount::ZERO });
    bench.pass(50);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(
        outcome.guests[0].ending.reason.to_string(),
        "used 134.0 MiB beyond its size",
        "less 2 MiB of the process's own"
    );
}

#[test]
fn a_process_that_never_publishes_a_size_is_judged() {
    let mut bench = Bench::new();
    bench.machines[0].use_beyond_size(FrameCount::from_mib(200));
    // From before the first poll.
    bench.machines[0].lie(Lie { size: FrameCount::ZERO, resident: FrameCount::ZERO });
    bench.pass(50);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.guests[0].ending.reason.to_string(), "used 134.0 MiB beyond its size");
}

#[test]
fn a_guest_that_keeps_reporting_another_balloon_is_noticed() {
    let mut bench = Bench::new();
    bench.machines[0].disagree(2);
    bench.pass(5);
    assert_eq!(bench.told(), [""; 0]);
    bench.machines[0].disagree(3);
    bench.pass(5);
    assert_eq!(bench.told(), ["alpha reports a balloon of 448.0 MiB and has one of 448.0 MiB"]);
    bench.machines[0].disagree(0);
    bench.pass(5);
    assert_eq!(bench.supervisor.into_outcome(bench.now).guests[0].balloon.disagreements, 1);
}

#[test]
fn a_violation_is_reported_once_and_counted_at_every_poll() {
    let mut bench = Bench::with_rule(OveruseRule::Warn);
    bench.needs([64, 400]);
    bench.pass(50);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(200));
    bench.told();
    bench.pass(1);
    bench.machines[1].need(FrameCount::from_mib(400));
    bench.pass(20);
    let told = bench.told();
    assert_eq!(told.iter().filter(|line| line.starts_with("violation: ")).count(), 1, "{told:?}");
    assert!(bench.supervisor.into_outcome(bench.now).violations > 1);
}

#[test]
fn memory_beyond_the_pool_is_a_violation() {
    let mut bench = Bench::new();
    bench.needs([64, 400]);
    bench.pass(50);
    bench.machines[0].use_beyond_size(FrameCount::from_mib(200));
    bench.pass(50);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert!((1..=10).contains(&outcome.violations), "{} violations", outcome.violations);
    assert!(outcome.guests[1].is_success());
}

#[test]
fn a_process_that_stops_unasked_has_failed() {
    let mut bench = Bench::new();
    bench.machines[0].end(EndReason::Stopped);
    bench.pass(1);
    bench.supervisor.request_stop();
    bench.pass(1);
    let outcome = bench.supervisor.into_outcome(bench.now);
    let reasons: Vec<String> = outcome.guests.iter().map(|guest| guest.ending.reason.to_string()).collect();
    assert_eq!(reasons, ["failed: its process stopped, and nothing had asked it to", "stopped"]);
    assert!(!outcome.is_success());
}

#[test]
fn samples_are_kept_where_they_are_wanted() {
    let mut bench = Bench::new();
    bench.pass(100);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert!(outcome.guests.iter().all(|guest| guest.samples.is_empty()));
    let mut supervisor = Supervisor::new(POOL, Policy::default(), Moment::default());
    supervisor.keep_samples();
    launch(&mut supervisor, &spec("alpha"), Moment::default());
    supervisor.poll(Moment::default());
    assert!(!supervisor.into_outcome(Moment::default()).guests[0].samples.is_empty());
}

#[test]
fn physical_memory_beyond_the_pool_is_a_violation_although_it_is_not_resident() {
    let mut bench = Bench::new();
    bench.needs([64, 64]);
    bench.pass(50);
    bench.supervisor.record_physical(Some(POOL.saturating_add(FrameCount::from_mib(4))));
    bench.pass(1);
    bench.supervisor.record_physical(Some(POOL.saturating_add(FrameCount::from_mib(8))));
    bench.pass(3);
    bench.supervisor.record_physical(None);
    bench.pass(3);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.violations, 3, "two processes take 4 MiB for themselves, and page tables a little");
    assert_eq!(outcome.peak_physical, POOL.saturating_add(FrameCount::from_mib(8)));
    assert!(outcome.peak_resident < POOL);
}

#[test]
fn a_silence_is_reported_once_with_where_the_processor_is() {
    let mut bench = Bench::new();
    bench.pass(50);
    let answer = || GuestEvent::Inspected(vec!["RIP 1".into(), "RIP 2".into()]);
    bench.machines[0].say(answer());
    bench.pass(1);
    assert_eq!(bench.told(), [""; 0], "it was not asked for");
    let silent_since = bench.now;
    for _ in 0..300 {
        bench.now = bench.now.after(TICK);
        bench.machines[1].step(bench.now);
        bench.supervisor.poll(bench.now);
    }
    let since = silent_since.since(Moment::from_ns(1_000_000)).as_secs_f64();
    assert_eq!(bench.told(), [format!("alpha is silent: it has not come to its balloon since {since:.2} s")]);
    assert_eq!([0, 1].map(|guest| bench.machines[guest].inspections.get()), [1, 0]);
    bench.machines[0].say(answer());
    bench.machines[0].say(answer());
    bench.supervisor.read_events(bench.now);
    assert_eq!(bench.told(), ["alpha | RIP 1", "alpha | RIP 2"], "one answer");
    bench.supervisor.inspect();
    assert_eq!([0, 1].map(|guest| bench.machines[guest].inspections.get()), [2, 1]);
    bench.pass(1);
    assert_eq!(bench.status().guests[0].state, GuestState::Running);
}

#[test]
fn a_problem_is_reported_with_the_guests_name() {
    let mut bench = Bench::new();
    bench.pass(1);
    bench.machines[0].say(GuestEvent::Problem("the guest gets no balloon interrupt".into()));
    bench.pass(1);
    assert_eq!(bench.told(), ["alpha has a problem: the guest gets no balloon interrupt"]);
}
