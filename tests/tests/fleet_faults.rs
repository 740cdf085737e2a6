//! Faults of one guest, of its VMM process or of the supervisor: the other guests go on unharmed,
//! and no process is left behind.

use std::time::Duration;

use aerostat_tests::environment::{app_image, guest_image};
use aerostat_tests::fleet::{Fleet, FleetPlan, Member, Receiver, line_with};
use aerostat_tests::{DEADLINE, Vmm};
use rustix::process::Signal;

/// How long a fleet may take to end after a signal: its guests have two seconds after the request
/// to stop, and two after they are killed.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// The phases of every neighbour. They fit its minimum, so no other guest has to shrink for it.
const PHASES: &str = "phases=48M:300ms,16M:300ms repeat";

/// Describes a guest that works beside the faulty one and verifies its memory.
fn neighbour(name: &str) -> Member<'_> {
    Member { name, image: app_image("memwalk"), min_mib: 48, max_mib: 96, command_line: PHASES }
}

/// Describes a test guest with all its memory granted from the start.
fn test_guest(name: &'static str) -> Member<'static> {
    Member { name, image: guest_image(name), min_mib: 64, max_mib: 64, command_line: "" }
}

#[test]
fn a_vmm_process_killed_while_inflating_frees_its_memory() {
    let victim =
        Member { min_mib: 64, max_mib: 512, command_line: "phases=400M:1s,16M:1s repeat", ..neighbour("victim") };
    // Whenever it grows it needs the memory of the victim, which is then shrunk at once.
    let grower = Member { max_mib: 512, command_line: "phases=16M:1500ms,392M:3s repeat", ..neighbour("grower") };
    let plan = FleetPlan::pool_mib(480).with(&victim).with(&grower).with(&neighbour("bystander"));
    let mut fleet = plan.up(None);
    let vmms = ["victim", "grower", "bystander"].map(|name| fleet.wait_for_vmm(name));
    kill_while_inflating(&mut fleet, &vmms[0]);
    fleet.wait_for("end of the victim", |fleet| line_with(&fleet.events(), &["victim ended"]));
    fleet.wait_for_line(&["grower", "walking 392 of 392 MiB"]);
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(1);
    assert_eq!(run.report()["violations"], 0, "{run}");
    run.expect_unharmed("grower");
    run.expect_unharmed("bystander");
    run.expect_in_summary("victim", "killed by signal 9");
    assert!(run.guest("victim")["exit"].as_str().is_some_and(|exit| exit.contains("killed by signal 9")), "{run}");
    expect_gone(&vmms);
}

/// Returns whether a status line shows a guest that is larger than its target, so it is inflating.
fn is_above_target(line: &str) -> bool {
    let mib = |key: &str| -> Option<u64> { line.split_once(key)?.1.split_whitespace().next()?.parse().ok() };
    mib("guest size ").zip(mib("target ")).is_some_and(|(size, target)| size > target)
}

/// Stops the process whenever its target falls. Kills it once a status line shows that it was
/// stopped while inflating.
fn kill_while_inflating(fleet: &mut Fleet, victim: &Vmm) {
    let mut seen = 0;
    loop {
        let lowered = |fleet: &Fleet| {
            let count = fleet.events().lines().filter(|line| is_lowering(line, &victim.guest)).count();
            (count > seen).then_some(count)
        };
        seen = fleet.wait_for("lower target for the victim", lowered);
        victim.signal(Signal::STOP);
        let printed = fleet.printed().len();
        let words = [&format!("  {} ", victim.guest), "guest size"];
        let line = fleet.wait_for("line about the victim", |fleet| {
            fleet.printed().get(printed..).and_then(|text| line_with(text, &words))
        });
        if is_above_target(&line) {
            victim.signal(Signal::KILL);
            return;
        }
        victim.signal(Signal::CONT);
    }
}

/// Returns whether an event says that the target of `guest` fell.
fn is_lowering(line: &str, guest: &str) -> bool {
    let Some((_, change)) = line.split_once(&format!("  {guest} target from ")) else { return false };
    let mut sizes = change.split(" to ").filter_map(|part| part.split(' ').next()?.parse::<f64>().ok());
    matches!((sizes.next(), sizes.next()), (Some(from), Some(to)) if to < from)
}

#[test]
fn guests_that_fail_do_not_harm_a_neighbour() {
    let plan = FleetPlan::pool_mib(256).with(&test_guest("panic")).with(&test_guest("triple_fault"));
    let run = plan.with(&neighbour("neighbour")).up(Some(Duration::from_secs(3))).wait_for_end(DEADLINE);
    run.expect_exit_code(1);
    assert_eq!(run.report()["violations"], 0, "{run}");
    run.expect_unharmed("neighbour");
    run.expect_in_summary("panic", "  panic");
    // The last lines of its log.
    run.expect_in_summary("panic", "| ");
    run.expect_in_summary("panic", "as asked");
    run.expect_in_summary("triple_fault", "guest fault: triple fault");
    run.expect_in_summary("triple_fault", "RIP ");
    assert_eq!(run.guest("panic")["exit"], "panic", "{run}");
}

/// The guest masks interrupts for ever, so its driver never runs again. It ends with the others.
#[test]
fn a_guest_that_falls_silent_is_shown_as_silent() {
    let plan = FleetPlan::pool_mib(256).with(&test_guest("masked_loop")).with(&neighbour("neighbour"));
    let mut fleet = plan.up(Some(Duration::from_secs(7)));
    let vmms = ["masked_loop", "neighbour"].map(|name| fleet.wait_for_vmm(name));
    fleet.wait_for_line(&["masked_loop  silent "]);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    run.expect_unharmed("neighbour");
    run.expect_in_summary("masked_loop", "stopped");
    expect_gone(&vmms);
}

#[test]
fn a_signal_to_the_supervisor_ends_the_fleet_in_order() {
    interrupt(Receiver::Supervisor);
}

#[test]
fn a_signal_to_the_process_group_ends_the_fleet_in_order() {
    interrupt(Receiver::Group);
}

fn interrupt(receiver: Receiver) {
    let plan = FleetPlan::pool_mib(256).with(&neighbour("left")).with(&neighbour("right"));
    let mut fleet = plan.up(None);
    let vmms = ["left", "right"].map(|name| fleet.wait_for_guest(name));
    fleet.signal(receiver, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    for name in ["left", "right"] {
        run.expect_unharmed(name);
        run.expect_in_summary(name, "stopped");
    }
    expect_gone(&vmms);
}

/// Starts two guests whose phases need each other's memory. The supervisor's output is not read.
fn up_alternating_unread(limit: Option<Duration>) -> Fleet {
    let walker = |name, phases| Member { max_mib: 192, command_line: phases, ..neighbour(name) };
    let plan = FleetPlan::pool_mib(256).with(&walker("ebb", "phases=128M:1s,24M:1s repeat"));
    plan.with(&walker("flow", "phases=24M:1s,128M:1s repeat")).up_unread(limit)
}

/// Guests get their targets, and a signal ends the fleet.
#[test]
fn a_supervisor_whose_output_is_not_read_goes_on() {
    let mut fleet = up_alternating_unread(None);
    for guest in ["ebb", "flow", "ebb"] {
        let seen = fleet.events().len();
        fleet.wait_for("lower target", |fleet| {
            let events = fleet.events();
            events.get(seen..)?.lines().any(|line| is_lowering(line, guest)).then_some(())
        });
    }
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(run.report()["violations"], 0, "{run}");
    run.expect_unharmed("ebb");
    run.expect_unharmed("flow");
}

#[test]
fn a_run_whose_output_is_not_read_ends_at_its_limit() {
    let run = up_alternating_unread(Some(Duration::from_secs(2))).wait_for_end(DEADLINE);
    run.expect_exit_code(0);
    assert_eq!(
        (&run.guest("ebb")["exit"], &run.guest("flow")["exit"]),
        (&"stopped".into(), &"stopped".into()),
        "{run}"
    );
}

/// A guest that writes to its ballooned memory harms only itself.
#[test]
fn a_guest_that_uses_ballooned_memory_is_ended() {
    let mut fleet =
        FleetPlan::pool_mib(192).with(&test_guest("touch_ballooned")).with(&neighbour("neighbour")).up(None);
    let vmm = fleet.wait_for_vmm("touch_ballooned");
    let line = fleet.wait_for("end of the guest", |fleet| line_with(&fleet.events(), &["touch_ballooned ended"]));
    assert!(line.contains("MiB beyond its size"), "{line}");
    // The neighbour goes on.
    let count = |fleet: &Fleet| fleet.printed().matches("  neighbour ").count();
    let before = count(&fleet);
    fleet.wait_for("line more about the neighbour", |fleet| (count(fleet) > before + 1).then_some(()));
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(1);
    run.expect_unharmed("neighbour");
    run.expect_in_summary("touch_ballooned", "beyond its size");
    run.expect_in_summary("touch_ballooned", "size 24");
    expect_gone(&[vmm]);
}

/// With `overuse = "warn"` the guest lives on, and the user is told.
#[test]
fn a_guest_that_uses_ballooned_memory_is_reported() {
    let plan = FleetPlan::pool_mib(192).with(&test_guest("touch_ballooned")).with_key("overuse", "warn");
    let mut fleet = plan.with(&neighbour("neighbour")).up(None);
    let words = ["touch_ballooned uses ", "beyond its size"];
    fleet.wait_for("warning", |fleet| line_with(&fleet.events(), &words));
    let walked = |fleet: &Fleet| line_with(&fleet.printed(), &["  neighbour ", "walking 48 of 48 MiB"]);
    fleet.wait_for("walk of the neighbour", walked);
    // The guest called INFLATE itself, without its driver.
    let words = ["touch_ballooned reports a balloon of 0.0 MiB and has one of 40.0 MiB"];
    fleet.wait_for("notice of wrong reports", |fleet| line_with(&fleet.events(), &words));
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    run.expect_unharmed("neighbour");
    let balloon = &run.guest("touch_ballooned")["balloon"];
    assert!(balloon["overuse_episodes"].as_u64() >= Some(1) && balloon["peak_overuse_mib"].as_u64() > Some(8), "{run}");
    assert_eq!(
        (&balloon["reclaimed_mib"], &run.guest("touch_ballooned")["exit"]),
        (&0.into(), &"stopped".into()),
        "{run}"
    );
}

/// With `overuse = "cap"` the memory is released again each time that the guest touches it.
#[test]
fn ballooned_memory_that_a_guest_uses_is_released_again() {
    let plan = FleetPlan::pool_mib(192).with(&test_guest("touch_ballooned")).with_key("overuse", "cap");
    let mut fleet = plan.with(&neighbour("neighbour")).up(None);
    let words = ["touch_ballooned uses ", "beyond its size, which is taken away again"];
    fleet.wait_for("event", |fleet| line_with(&fleet.events(), &words));
    let walked = |fleet: &Fleet| line_with(&fleet.printed(), &["  neighbour ", "walking 48 of 48 MiB"]);
    fleet.wait_for("walk of the neighbour", walked);
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    run.expect_unharmed("neighbour");
    let guest = run.guest("touch_ballooned");
    assert!(guest["balloon"]["reclaimed_mib"].as_u64() > Some(8), "{run}");
    assert_eq!(guest["exit"], "stopped", "{run}");
}

/// Waits until no process of the fleet is left.
#[track_caller]
fn expect_gone(vmms: &[Vmm]) {
    vmms.iter().for_each(Vmm::wait_until_gone);
}
