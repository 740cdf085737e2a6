//! Guests that ignore their targets beside a guest that waits for what they have.

use std::time::Duration;

use aerostat_tests::environment::{app_image, guest_image};
use aerostat_tests::fleet::{Fleet, FleetPlan, Member, Receiver, Run, line_with};
use rustix::process::Signal;

/// How long a fleet may take to end after a signal.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Describes a guest that fills 384 MiB and ignores its targets from then on, for so many seconds.
fn ignores(command_line: &str) -> Member<'_> {
    Member { name: "ignores", image: guest_image("ignores_targets"), min_mib: 32, max_mib: 512, command_line }
}

/// What a neighbour needs that is satisfied once the other guest is at its target.
const MODEST: &str = "phases=16M:6s,256M:3600s";
/// What it needs that takes more than that: it waits as long as the other guest runs.
const DEMANDING: &str = "phases=16M:6s,400M:3600s";

/// Describes a guest that needs more memory after a while, from then on, and verifies it.
fn neighbour(command_line: &'static str) -> Member<'static> {
    Member { name: "neighbour", image: app_image("memwalk"), min_mib: 32, max_mib: 512, command_line }
}

/// Plans a fleet of both in a pool with little room beside what the first one fills: a guest that
/// swaps leaves 6 % of the pool alone. What it has could be evicted, so the scheduler believes that
/// it could shrink.
fn plan(first: &Member<'_>, rule: &str, need: &'static str) -> FleetPlan {
    let plan = FleetPlan::pool_mib(496).with(first).with_key("swap", "512M").with_key("shares", "low");
    plan.with_key("ignored_target", rule).with(&neighbour(need)).with_key("shares", "high")
}

fn wait_for_event(fleet: &mut Fleet, words: &[&str]) -> String {
    fleet.wait_for("event", |fleet| line_with(&fleet.events(), words))
}

/// Ends the fleet, whose neighbour got all that it needed.
fn end(mut fleet: Fleet, exit_code: i32) -> Run {
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(exit_code);
    run.expect_unharmed("neighbour");
    assert_eq!(run.report()["violations"], 0, "{run}");
    run
}

#[test]
fn a_guest_that_ignores_its_target_is_paged_for_a_neighbour_and_gets_its_pages_back() {
    let mut fleet = plan(&ignores("384 16"), "page", MODEST).up(None);
    wait_for_event(&mut fleet, &["ignores is ", "as it ignores its target: the host pages it out"]);
    fleet.wait_for_line(&["neighbour", "walking 256 of 256 MiB"]);
    let explained = fleet.ask(&["explain", "ignores"]);
    assert!(explained.contains("the host pages it out"), "{explained}");
    // Its driver runs again, evicts and follows, and every word is as it was.
    wait_for_event(&mut fleet, &["ignores is at its target again"]);
    let verified = |fleet: &Fleet| line_with(&fleet.log("ignores"), &["ignores targets: verified"]);
    fleet.wait_for("verified memory", verified);
    let run = end(fleet, 0);
    let enforcement = &run.guest("ignores")["enforcement"];
    assert!(enforcement["episodes"].as_u64() >= Some(1), "{run}");
    assert!(enforcement["peak_paged_out_mib"].as_u64() >= Some(128), "{run}");
    assert_eq!(run.guest("ignores")["exit"], "stopped", "{run}");
}

#[test]
fn a_stopped_vmm_process_is_ended_while_a_neighbour_waits() {
    let victim = Member {
        name: "victim",
        image: app_image("memwalk"),
        min_mib: 32,
        max_mib: 512,
        command_line: "phases=368M:600s",
    };
    let mut fleet = plan(&victim, "page", DEMANDING).up(None);
    let vmm = fleet.wait_for_vmm("victim");
    fleet.wait_for_line(&["victim", "walking 368 of 368 MiB"]);
    vmm.signal(Signal::STOP);
    let words = ["victim ended: failed: its process did not answer while other guests waited for its memory"];
    wait_for_event(&mut fleet, &words);
    fleet.wait_for_line(&["neighbour", "walking 400 of 400 MiB"]);
    let run = end(fleet, 1);
    assert!(run.guest("victim")["exit"].as_str().is_some_and(|exit| exit.contains("did not answer")), "{run}");
}

#[test]
fn a_guest_that_goes_on_to_ignore_its_target_is_ended_by_its_rule() {
    let mut fleet = plan(&ignores("384 600"), "kill", DEMANDING).up(None);
    wait_for_event(&mut fleet, &["ignores is ", "as it ignores its target: the host pages it out"]);
    wait_for_event(&mut fleet, &["ignores ended: ignored its target and kept "]);
    fleet.wait_for_line(&["neighbour", "walking 400 of 400 MiB"]);
    end(fleet, 1);
}

#[test]
fn a_guest_that_goes_on_to_ignore_its_target_is_paused_by_its_rule() {
    let mut fleet = plan(&ignores("384 600"), "pause", DEMANDING).up(None);
    wait_for_event(&mut fleet, &["ignores is ", "as it ignores its target: the host pages it out"]);
    wait_for_event(&mut fleet, &["ignores is ", "as it ignores its target: it is paused"]);
    fleet.wait_for_line(&["  ignores ", "  paused "]);
    fleet.apply(&plan(&ignores("384 600"), "page", DEMANDING));
    let goes_on = |fleet: &Fleet| {
        let status = fleet.status("ignores")?;
        (status["state"] != "paused").then_some(())
    };
    fleet.wait_for("a guest that goes on", goes_on);
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_exit_code(0);
    run.expect_unharmed("neighbour");
    assert_eq!((&run.report()["violations"], &run.guest("ignores")["exit"]), (&0.into(), &"stopped".into()), "{run}");
}
