//! Guests that ignore their targets, processes that do not answer, and the way back.

use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::Resources;
use aerostat_abi::units::FrameCount;

use super::{Bench, TICK, spec};
use crate::fleet::GuestSpec;
use crate::scheduler::{IgnoredTarget, Rung};
use crate::supervisor::fake::{Machine, Manners};
use crate::supervisor::{Adoption, EnforcementStatus, Found, GuestState};

const fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// A fleet whose first guest has most of the pool and ignores its target from now on, while the
/// second begins to need as much. Half of the pool is what each is entitled to.
fn ignoring(rule: IgnoredTarget) -> Bench {
    begin(rule, Machine::can_page)
}

/// The same; `prepare` is called with each machine first.
fn begin(rule: IgnoredTarget, prepare: impl Fn(&Machine)) -> Bench {
    let mut bench = Bench::with(|name| GuestSpec { ignored_target: rule, ..spec(name) });
    for machine in &bench.machines {
        machine.can_evict.set(true);
        prepare(machine);
    }
    bench.needs([400, 20]);
    bench.pass(50);
    assert!(bench.status().guests[0].size >= mib(400));
    bench.machines[0].ignores_targets.set(true);
    bench.needs([400, 400]);
    bench.told();
    bench
}

fn rung(bench: &Bench) -> Option<Rung> {
    bench.status().guests[0].enforcement.map(|EnforcementStatus { rung, .. }| rung)
}

fn seconds(polls: usize) -> Duration {
    TICK * u32::try_from(polls).unwrap()
}

#[test]
fn a_guest_that_ignores_its_target_is_paged_for_one_that_waits() {
    let mut bench = ignoring(IgnoredTarget::Page);
    bench.pass(1);
    assert_eq!(rung(&bench), Some(Rung::Asked));
    // 200 ms until it is paged, and 40 MiB out of 400 with each of its steps.
    bench.pass(25);
    let status = bench.status();
    let [alpha, beta] = &status.guests[..] else { panic!("two guests") };
    assert_eq!(alpha.enforcement.map(|enforcement| enforcement.rung), Some(Rung::Paging));
    assert!(alpha.size >= mib(400) && alpha.target <= mib(258), "{alpha:?}");
    assert!(beta.size >= mib(250) && beta.resident >= mib(250), "the other has its part: {beta:?}");
    assert!(alpha.resident <= alpha.target && alpha.paged_out >= Some(mib(140)), "{alpha:?}");
    let limit = bench.machines[0].limit.get();
    assert_eq!(limit, Some(alpha.target.saturating_sub(mib(2))), "it keeps what it is owed, less its process's part");
    let process_limit = bench.machines[0].process_limit.get().unwrap();
    assert!((alpha.target..alpha.size).contains(&process_limit), "{process_limit}");
    let told = bench.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("as it ignores its target: the host pages it out"), "{told:?}");

    // It follows again: the limit is lifted, and what is out comes back as far as there is room.
    bench.machines[0].ignores_targets.set(false);
    bench.needs([400, 20]);
    bench.pass(150);
    let status = bench.status();
    let alpha = &status.guests[0];
    assert_eq!((bench.machines[0].limit.get(), alpha.enforcement, alpha.paged_out), (None, None, Some(mib(0))));
    assert!(alpha.resident >= mib(400), "it is granted what the other does not need: {alpha:?}");
    let told = bench.told();
    assert!(told.len() == 1 && told[0].contains("alpha is at its target again after"), "{told:?}");
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!((outcome.violations, outcome.guests[0].enforcement.episodes), (0, 1));
    assert!(outcome.guests[0].enforcement.peak_paged_out >= mib(140));
    assert!(outcome.guests[0].enforcement.confined >= seconds(20));
}

#[test]
fn memory_that_was_won_does_not_go_back_at_once() {
    let mut bench = ignoring(IgnoredTarget::Page);
    bench.pass(40);
    let doorbells = bench.machines[0].doorbells.get();
    bench.pass(500);
    assert_eq!(bench.machines[0].doorbells.get(), doorbells, "the same part as an honest guest");
    assert_eq!(bench.supervisor.into_outcome(bench.now).violations, 0);
}

#[test]
fn a_guest_whose_memory_no_other_needs_is_left_alone_for_long() {
    let mut bench = Bench::new();
    bench.machines[0].can_page();
    bench.needs([400, 20]);
    bench.pass(50);
    bench.machines[0].ignores_targets.set(true);
    bench.needs([100, 20]);
    bench.pass(400);
    assert_eq!(rung(&bench), Some(Rung::Asked));
    bench.pass(200);
    assert_eq!(rung(&bench), Some(Rung::Paging), "10 s without progress");
}

#[test]
fn a_guest_is_paused_by_the_policy_and_goes_on_when_there_is_room() {
    let mut bench = ignoring(IgnoredTarget::Pause);
    bench.pass(1400);
    assert_eq!(rung(&bench), Some(Rung::Paging));
    bench.pass(200);
    assert_eq!((rung(&bench), bench.status().guests[0].state), (Some(Rung::Paused), GuestState::Paused));
    assert!(bench.machines[0].is_paused.get());
    assert!(bench.status().guests[1].size >= mib(250));
    bench.pass(1000);
    assert!(bench.machines[0].is_paused.get(), "the other needs the memory");
    let told = bench.told();
    assert!(told.last().unwrap().ends_with("as it ignores its target: it is paused"), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("silent")), "{told:?}");
    bench.needs([400, 20]);
    bench.pass(250);
    let alpha = &bench.status().guests[0];
    assert!(!bench.machines[0].is_paused.get() && alpha.target >= mib(400), "{alpha:?}");
    assert_eq!((rung(&bench), alpha.state), (None, GuestState::Running));
    assert_eq!(bench.supervisor.into_outcome(bench.now).guests[0].enforcement.pauses, 1);
}

#[test]
fn another_policy_lets_a_paused_guest_go_on() {
    let mut bench = ignoring(IgnoredTarget::Pause);
    bench.pass(1600);
    assert!(bench.machines[0].is_paused.get());
    let id = bench.supervisor.guests[0].id;
    bench.supervisor.set_ignored_target(id, IgnoredTarget::Page);
    bench.pass(2);
    assert!(!bench.machines[0].is_paused.get());
    bench.pass(30);
    assert_eq!(rung(&bench), Some(Rung::Paging));
}

#[test]
fn a_guest_is_ended_by_the_policy() {
    let mut bench = ignoring(IgnoredTarget::Kill);
    bench.pass(1400);
    assert_eq!(rung(&bench), Some(Rung::Paging), "others have what they need, so it has time");
    bench.pass(200);
    let status = bench.status();
    assert_eq!(status.guests[0].state, GuestState::Ended);
    assert!(status.guests[1].size >= mib(400));
    let outcome = bench.supervisor.into_outcome(bench.now);
    let reason = outcome.guests[0].ending.reason.to_string();
    assert!(reason.starts_with("ignored its target and kept 1"), "{reason}");
    assert!(!outcome.guests[0].is_success() && outcome.violations == 0);
}

#[test]
fn a_process_that_is_stopped_is_squeezed_and_ended_while_others_wait() {
    let mut bench = ignoring(IgnoredTarget::Page);
    bench.machines[0].is_stopped.set(true);
    bench.pass(60);
    assert_eq!(rung(&bench), Some(Rung::Squeezed));
    let squeezed = bench.machines[0].squeezes.get();
    assert!((mib(140)..mib(160)).contains(&squeezed), "{squeezed}");
    assert!(bench.status().guests[1].target < mib(120), "nothing of that is free");
    bench.pass(120);
    let status = bench.status();
    assert_eq!(status.guests[0].state, GuestState::Ended);
    assert!(status.guests[1].size >= mib(400), "{status:?}");
    let outcome = bench.supervisor.into_outcome(bench.now);
    let reason = outcome.guests[0].ending.reason.to_string();
    assert_eq!(reason, "failed: its process did not answer while other guests waited for its memory");
    assert_eq!(outcome.violations, 0);
}

#[test]
fn a_process_that_is_stopped_costs_nothing_while_no_other_waits() {
    let mut bench = Bench::new();
    bench.machines[0].can_page();
    bench.needs([400, 20]);
    bench.pass(50);
    bench.machines[0].is_stopped.set(true);
    bench.needs([20, 20]);
    bench.pass(5000);
    assert_ne!(bench.status().guests[0].state, GuestState::Ended);
    bench.machines[0].is_stopped.set(false);
    bench.pass(50);
    assert_eq!((rung(&bench), bench.status().guests[0].size), (None, mib(64)));
}

#[test]
fn a_process_that_acknowledges_a_limit_and_keeps_none_frees_nothing_and_is_ended() {
    let mut bench = ignoring(IgnoredTarget::Page);
    bench.machines[0].keeps_no_limit.set(true);
    bench.pass(60);
    assert!(bench.status().guests[1].target < mib(120), "its memory is measured from outside");
    bench.pass(200);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.violations, 0);
    let reason = outcome.guests[0].ending.reason.to_string();
    assert_eq!(reason, "failed: its process kept more memory than the limit that it had acknowledged");
}

#[test]
fn a_guest_that_can_not_be_paged_is_squeezed_and_the_policy_follows() {
    let bench = |rule| {
        let mut bench = begin(rule, |_| {});
        bench.pass(1600);
        bench
    };
    let page = bench(IgnoredTarget::Page);
    assert_eq!(rung(&page), Some(Rung::Squeezed));
    assert_eq!(page.machines[0].limit.get(), None);
    assert_eq!(rung(&bench(IgnoredTarget::Pause)), Some(Rung::Paused));
    assert_eq!(bench(IgnoredTarget::Kill).status().guests[0].state, GuestState::Ended);
}

#[test]
fn a_guest_that_was_asked_to_end_is_left_in_peace() {
    let mut bench = ignoring(IgnoredTarget::Kill);
    bench.pass(350 - 100);
    bench.supervisor.request_stop();
    bench.pass(200);
    let outcome = bench.supervisor.into_outcome(bench.now);
    assert_eq!(outcome.guests[0].ending.reason.to_string(), "stopped");
}

#[test]
fn an_adopted_process_is_free_of_what_its_former_supervisor_had_put_in_force() {
    let bench = Bench::new();
    let (machine, handle) = Machine::boot(mib(512), mib(128), Manners::Obliging);
    machine.limit.set(Some(mib(64)));
    machine.is_paused.set(true);
    machine.hand_over(mib(128));
    let mut supervisor = bench.supervisor;
    let adoption = Adoption {
        spec: spec("found"),
        handle,
        spawned: bench.now,
        machine: mib(512),
        target: mib(128),
        epoch: Epoch(2),
        size: mib(128),
        told: Resources::default(),
        group: None,
    };
    supervisor.take_in(Found::Running(Box::new(adoption)), bench.now);
    assert_eq!((machine.limit.get(), machine.is_paused.get()), (None, false));
}
