//! Malicious guests: whatever they do to their monitor, they harm only themselves.
//!
//! The guest `hostile` does each of its deeds alone, and the monitor's accounts must be right at
//! the end. Then it does them in a fleet, beside a neighbour that verifies its memory, and the
//! supervisor must end in order.

use std::time::Duration;

use aerostat::host::EndReason;
use aerostat::host::disk::{DataDisk, DiskFaults, DiskMode};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{app_image, guest_image};
use aerostat_tests::fleet::{Fleet, FleetPlan, Member, Receiver, Run, line_with};
use aerostat_tests::{Guest, Machine, Plan};
use rustix::process::Signal;

const MEMORY_MIB: u64 = 64;
/// How long a fleet may take to end after a signal.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a round of the supervisor may take, waits for a processor aside.
const MOST_OF_A_ROUND_MS: f64 = 50.0;
/// Calls that a guest makes without a pause: more than a burst, so that the monitor holds some of
/// them back for seconds.
const CALLS: u64 = 30_000;

#[test]
fn calls() {
    let mut guest = boot(&plan(&format!("calls {CALLS}")));
    expect_right_accounts(&mut guest);
    guest.check(guest.facts().port_calls >= CALLS, "calls were not counted");
}

/// The supervisor can end the guest in the middle of its calls.
#[test]
fn a_guest_that_never_stops_calling_can_be_stopped() {
    let mut guest = boot(&plan("calls 1000000000"));
    guest.wait_for_facts("calls held back", |facts| facts.port_calls > CALLS);
    guest.request_stop();
    let reason = guest.wait_for_end();
    guest.check(reason == EndReason::Stopped, &format!("a request to stop ended it with {reason:?}"));
    expect_sum(&guest);
}

#[test]
fn session() {
    expect_right_accounts(&mut boot(&plan("session")));
}

/// More sessions than are begun without being held back.
#[test]
fn resets() {
    expect_right_accounts(&mut boot(&plan("resets 10000")));
}

#[test]
fn registers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [0; 4096]).unwrap();
    let disk = DataDisk { path, mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    expect_right_accounts(&mut boot(&plan("registers").disk(disk)));
}

#[test]
fn huge_frame() {
    let mut guest = boot(&plan("huge_frame"));
    expect_right_accounts(&mut guest);
    let facts = guest.facts();
    guest.check(
        facts.inflated == facts.deflated && facts.inflated > FrameCount::ZERO,
        "not all inflated memory was deflated",
    );
}

#[test]
fn lies() {
    expect_right_accounts(&mut boot(&plan("lies")));
}

#[test]
fn requests() {
    expect_right_accounts(&mut boot(&plan("requests")));
}

/// Requests without end and beyond all limits, beside a guest that uses what it has.
#[test]
fn a_flood_of_requests_costs_only_the_guest() {
    let flood = Member { max_mib: 256, ..member("flood", "requests") };
    let mut fleet = FleetPlan::pool_mib(192).with(&neighbour()).with(&flood).up(None);
    wait_for_end_of(&mut fleet, "flood");
    let run = end(fleet);
    assert_eq!(run.guest("flood")["exit"], "success", "{run}");
    let requests = run.guest("flood")["requests"].clone();
    assert!(requests["denied"].as_u64() > Some(20), "{requests}\n{run}");
    let told = run.events.lines().filter(|line| line.contains("flood asked for")).count();
    assert!((1..100).contains(&told), "{told} events are about requests\n{run}");
}

#[test]
fn rings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [0; 4096]).unwrap();
    let disk = DataDisk { path, mode: DiskMode::ReadOnly, faults: DiskFaults::default() };
    expect_right_accounts(&mut boot(&plan("rings").disk(disk)));
}

#[test]
fn share() {
    expect_right_accounts(&mut boot(&plan("share")));
}

#[test]
fn strings() {
    expect_right_accounts(&mut boot(&plan("strings")));
}

/// The monitor reclaims offered frames and no others, while the guest changes all shared words.
#[test]
fn flicker() {
    let mut guest = boot(&plan("flicker"));
    guest.wait_for_line("hostile: flickers");
    guest.set_target_mib(MEMORY_MIB / 2);
    expect_right_accounts(&mut guest);
    guest.check(guest.facts().host_reclaimed > FrameCount::ZERO, "nothing was reclaimed");
}

/// A guest that balloons its own page tables ends; its monitor does not.
#[test]
fn tables() {
    let mut guest = boot(&plan("tables"));
    let reason = guest.wait_for_end();
    guest.check(reason != EndReason::Exited(GuestExit::Success), "it lived on");
    guest.check(!matches!(reason, EndReason::Killed(_)), &format!("its monitor died: {reason}"));
    expect_sum(&guest);
}

fn plan(deed: &str) -> Plan {
    Plan::test_guest("hostile").memory_mib(MEMORY_MIB).command_line(deed)
}

fn boot(plan: &Plan) -> Guest {
    plan.boot(Machine::Kvm)
}

/// Asserts that the guest got the right answers and that no frame was lost.
#[track_caller]
fn expect_right_accounts(guest: &mut Guest) {
    guest.expect_exit(GuestExit::Success);
    guest.expect_logged("hostile: ok");
    expect_sum(guest);
}

#[track_caller]
fn expect_sum(guest: &Guest) {
    let facts = guest.facts();
    let sum = facts.size.saturating_add(facts.balloon);
    guest.check(sum == FrameCount::from_mib(MEMORY_MIB), "size + balloon is not the memory");
}

/// All deeds at the same time.
#[test]
fn hostile_guests_do_not_harm_a_neighbour() {
    let deeds = ["session", "huge_frame", "share", "strings"];
    let resets = member("resets", "resets 10000");
    let calls = format!("calls {CALLS}");
    // The guest that lies about its demand has a larger machine, so the scheduler could grant more.
    let liar = Member { max_mib: 512, ..member("lies", "lies") };
    let mut plan = FleetPlan::pool_mib(640).with(&neighbour()).with(&liar);
    for deed in deeds {
        plan = plan.with(&member(deed, deed));
    }
    let plan = plan.with(&member("calls", &calls)).with(&resets).with(&member("tables", "tables"));
    let mut fleet = plan.up(None);
    for name in deeds.into_iter().chain(["lies", "calls", "resets", "tables"]) {
        wait_for_end_of(&mut fleet, name);
    }
    let run = end(fleet);
    for name in deeds.into_iter().chain(["lies", "calls", "resets"]) {
        assert_eq!(run.guest(name)["exit"], "success", "{run}");
    }
    assert!(!run.guest("tables")["exit"].as_str().is_some_and(|exit| exit.contains("signal")), "{run}");
}

/// A million calls as fast as the monitor answers.
#[test]
#[ignore = "takes minutes where calls are held back"]
fn a_million_calls_do_not_harm_a_neighbour() {
    let fleet = FleetPlan::pool_mib(192).with(&neighbour()).with(&member("calls", "calls 1000000")).up(None);
    let patience = Duration::from_secs(600);
    let start = std::time::Instant::now();
    while line_with(&fleet.events(), &["calls ended"]).is_none() {
        assert!(start.elapsed() < patience, "a million calls took too long");
        std::thread::sleep(Duration::from_millis(100));
    }
    let run = end(fleet);
    assert_eq!(run.guest("calls")["exit"], "success", "{run}");
}

#[test]
fn others_are_served_beside_a_guest_that_never_inflates() {
    expect_others_served("deaf", "silent");
}

#[test]
fn others_are_served_beside_a_guest_that_inflates_a_frame_in_five_seconds() {
    expect_others_served("slow", "shrinking");
}

/// Asserts that a guest which needs more memory gets its share beside one that does not release it:
/// the host pages that one out.
#[track_caller]
fn expect_others_served(deed: &str, state: &str) {
    const POOL_MIB: u64 = 384;
    let stubborn = Member { min_mib: 32, max_mib: 256, ..member("stubborn", deed) };
    let grower = Member {
        name: "grower",
        image: app_image("memwalk"),
        min_mib: 32,
        max_mib: 256,
        command_line: "phases=16M:4s,240M:100s",
    };
    let mut fleet = FleetPlan::pool_mib(POOL_MIB).with(&stubborn).with(&grower).with(&neighbour()).up(None);
    fleet.wait_for("lower target for the stubborn guest", |fleet| {
        line_with(&fleet.events(), &["stubborn target from", "fair share"])
    });
    fleet.wait_for_line(&["  stubborn ", &format!("  {state} ")]);
    let run = end(fleet);
    run.expect_unharmed("grower");
    let samples = run.guest("grower")["samples"].clone();
    let largest = samples.as_array().into_iter().flatten().filter_map(|sample| sample["size_mib"].as_u64()).max();
    // The stubborn guest's size is some 178 MiB, and the neighbour's 48: half of what that one
    // leaves is more than both.
    assert!(largest.is_some_and(|mib| (164..POOL_MIB - 48).contains(&mib)), "{largest:?} MiB\n{run}");
    assert!(run.guest("stubborn")["enforcement"]["episodes"].as_u64() > Some(0), "{run}");
}

fn member<'a>(name: &'a str, deed: &'a str) -> Member<'a> {
    Member { name, image: guest_image("hostile"), min_mib: MEMORY_MIB, max_mib: MEMORY_MIB, command_line: deed }
}

/// Describes a guest whose phases fit its minimum.
fn neighbour() -> Member<'static> {
    Member {
        name: "neighbour",
        image: app_image("memwalk"),
        min_mib: 48,
        max_mib: 96,
        command_line: "phases=32M:300ms,16M:300ms repeat",
    }
}

#[track_caller]
fn wait_for_end_of(fleet: &mut Fleet, name: &str) {
    fleet.wait_for(&format!("end of {name}"), |fleet| line_with(&fleet.events(), &[&format!("  {name} ended")]));
}

/// Waits until the neighbour has gone on, and ends the fleet.
#[track_caller]
fn end(mut fleet: Fleet) -> Run {
    let count = |fleet: &Fleet| fleet.printed().matches("  neighbour ").count();
    let before = count(&fleet);
    fleet.wait_for("line more about the neighbour", |fleet| (count(fleet) > before + 1).then_some(()));
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_unharmed("neighbour");
    let report = run.report();
    assert_eq!(report["violations"], 0, "{run}");
    let longest = report["supervisor"]["longest_own_round_ms"].as_f64();
    assert!(longest.is_some_and(|ms| ms < MOST_OF_A_ROUND_MS), "a round took {longest:?} ms\n{run}");
    assert!(!run.output.stderr.contains("panicked"), "{run}");
    run
}
