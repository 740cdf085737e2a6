//! Supervisors that are killed while their guests run, and those that take the guests over.

use std::thread;
use std::time::Duration;

use aerostat_tests::Vmm;
use aerostat_tests::environment::app_image;
use aerostat_tests::fleet::{Fleet, FleetPlan, Member, Receiver, line_with};
use rustix::process::Signal;

/// How long a fleet may take to end after a signal.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How often a supervisor is killed.
const KILLS: u32 = 50;
const NAMES: [&str; 3] = ["ebb", "flow", "steady"];

/// Starts a fleet whose guests verify every byte of their memory, and waits until all work. Two
/// need most of the pool now and then, at the same time or not; one has phases that fit its
/// minimum.
fn up() -> (Fleet, [Vmm; 3]) {
    let guest =
        |name, max_mib, command_line| Member { name, image: app_image("memwalk"), min_mib: 48, max_mib, command_line };
    let guests = [
        guest("ebb", 384, "phases=256M:400ms,16M:400ms repeat"),
        guest("flow", 384, "phases=16M:400ms,256M:400ms repeat"),
        guest("steady", 96, "phases=40M:200ms,16M:200ms repeat"),
    ];
    let plan = guests.iter().fold(FleetPlan::pool_mib(640), FleetPlan::with);
    let mut fleet = plan.up(None);
    let vmms = NAMES.map(|name| fleet.wait_for_guest(name));
    (fleet, vmms)
}

/// Counts the supervisors that have taken a guest over.
fn take_overs(fleet: &Fleet, name: &str) -> usize {
    let taken_over = |line: &&str| line.contains(&format!(" {name} was taken over with a target of"));
    fleet.events().lines().filter(taken_over).count()
}

/// Has another supervisor take the guests over, and waits until it has.
#[track_caller]
fn be_taken_over(fleet: &mut Fleet, replace: impl FnOnce(&mut Fleet)) {
    let before = NAMES.map(|name| take_overs(fleet, name));
    replace(fleet);
    for (name, before) in NAMES.into_iter().zip(before) {
        fleet.wait_for(&format!("take-over of {name}"), |fleet| (take_overs(fleet, name) > before).then_some(()));
    }
}

/// Waits until both guests that take turns had most of the pool.
#[track_caller]
fn wait_until_both_have_worked(fleet: &mut Fleet) {
    for name in ["ebb", "flow"] {
        fleet.wait_for_line(&[&format!("  {name} "), "walking 256 of 256 MiB"]);
    }
}

/// Returns moments between 0 and 500 ms, the same in each run. Half of them are within the start of
/// a supervisor.
fn moments() -> impl Iterator<Item = Duration> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::from_fn(move || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let most = if state.is_multiple_of(2) { 40 } else { 500 };
        Some(Duration::from_millis(state / 2 % most))
    })
}

#[test]
fn guests_outlive_fifty_supervisors_and_no_byte_is_wrong() {
    let (mut fleet, vmms) = up();
    for (round, moment) in (1..=KILLS).zip(moments()) {
        thread::sleep(moment);
        if round % 5 == 0 {
            be_taken_over(&mut fleet, Fleet::replace_supervisor);
        } else {
            fleet.replace_supervisor();
        }
        for vmm in &vmms {
            assert!(vmm.is_alive(), "{vmm:?} has ended with supervisor {round}\n{}", fleet.events());
        }
    }
    wait_until_both_have_worked(&mut fleet);
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
    NAMES.iter().for_each(|name| run.expect_unharmed(name));
    vmms.iter().for_each(Vmm::wait_until_gone);
}

/// As a user replaces the supervisor by a newer one.
#[test]
fn a_supervisor_that_is_asked_to_leaves_its_guests_to_the_next_one() {
    let (mut fleet, vmms) = up();
    fleet.ask(&["down", "--keep-guests"]);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    NAMES.iter().for_each(|name| run.expect_in_summary(name, "runs on, for the next supervisor"));
    assert_eq!(run.report()["violations"], 0, "{run}");
    vmms.iter().for_each(|vmm| assert!(vmm.is_alive(), "{vmm:?}"));

    be_taken_over(&mut fleet, Fleet::start_again);
    wait_until_both_have_worked(&mut fleet);
    fleet.ask(&["down"]);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    NAMES.iter().for_each(|name| run.expect_unharmed(name));
    vmms.iter().for_each(Vmm::wait_until_gone);
}

/// A guest that is killed while no supervisor runs is reported by the next one.
#[test]
fn an_end_without_a_supervisor_is_reported() {
    let (mut fleet, vmms) = up();
    fleet.kill_supervisor();
    vmms[2].signal(Signal::KILL);
    vmms[2].wait_until_gone();
    fleet.start_again();
    let words = ["steady ended: failed: its process ended while no supervisor ran"];
    fleet.wait_for("end", |fleet| line_with(&fleet.events(), &words));
    wait_until_both_have_worked(&mut fleet);
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(1);
    ["ebb", "flow"].iter().for_each(|name| run.expect_unharmed(name));
    vmms.iter().for_each(Vmm::wait_until_gone);
}
