//! Guests that mean harm: whatever they do to their monitor, they alone pay for it.
//!
//! Each deed of the guest `hostile` is done alone, where the monitor's accounts must be right at
//! the end, and then beside a neighbour that verifies its memory, under a supervisor that must end
//! in order.

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
/// How long a fleet may take to end when it is told to.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Calls that a fleet's guest makes at once: a burst, and as many again as a monitor may hold back
/// for seconds.
const CALLS: u64 = 30_000;

#[test]
fn calls() {
    let mut guest = boot(&plan(&format!("calls {CALLS}")));
    expect_right_accounts(&mut guest);
    guest.check(guest.facts().port_calls >= CALLS, "calls were not counted");
}

/// Calls keep nobody from ending the guest.
#[test]
fn calls_without_end() {
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

#[test]
fn huge_frame() {
    let mut guest = boot(&plan("huge_frame"));
    expect_right_accounts(&mut guest);
    let facts = guest.facts();
    guest.check(
        facts.inflated == facts.deflated && facts.inflated > FrameCount::ZERO,
        "not all that was given came back",
    );
}

#[test]
fn lies() {
    expect_right_accounts(&mut boot(&plan("lies")));
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

/// The monitor takes what is offered and nothing else, whatever the words say and however they
/// change.
#[test]
fn flicker() {
    let mut guest = boot(&plan("flicker"));
    guest.wait_for_line("hostile: flickers");
    guest.set_target_mib(MEMORY_MIB / 2);
    expect_right_accounts(&mut guest);
    guest.check(guest.facts().host_reclaimed > FrameCount::ZERO, "nothing was taken");
}

/// A guest that gives its own page tables away is gone; the monitor is not.
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

/// Expects that the guest was answered as it should be, and that nothing got lost over it.
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

/// All of them at once.
#[test]
fn a_fleet_of_them_beside_a_neighbour() {
    let deeds = ["session", "huge_frame", "share", "strings"];
    let calls = format!("calls {CALLS}");
    // Who lies about needing memory could have more.
    let liar = Member { max_mib: 512, ..member("lies", "lies") };
    let mut plan = FleetPlan::pool_mib(640).with(&neighbour()).with(&liar);
    for deed in deeds {
        plan = plan.with(&member(deed, deed));
    }
    let mut fleet = plan.with(&member("calls", &calls)).with(&member("tables", "tables")).up(None);
    for name in deeds.into_iter().chain(["lies", "calls", "tables"]) {
        wait_for_end_of(&mut fleet, name);
    }
    let run = end(fleet);
    for name in deeds.into_iter().chain(["lies", "calls"]) {
        assert_eq!(run.guest(name)["exit"], "success", "{run}");
    }
    assert!(!run.guest("tables")["exit"].as_str().is_some_and(|exit| exit.contains("signal")), "{run}");
}

/// A million calls as fast as they are answered.
#[test]
#[ignore = "takes minutes where calls are held back"]
fn a_million_calls_beside_a_neighbour() {
    let fleet = FleetPlan::pool_mib(192).with(&neighbour()).with(&member("calls", "calls 1000000")).up(None);
    let patience = Duration::from_secs(600);
    let start = std::time::Instant::now();
    while line_with(&fleet.events(), &["calls ended"]).is_none() {
        assert!(start.elapsed() < patience, "a million calls take too long");
        std::thread::sleep(Duration::from_millis(100));
    }
    let run = end(fleet);
    assert_eq!(run.guest("calls")["exit"], "success", "{run}");
}

#[test]
fn a_guest_that_never_gives_back() {
    expect_others_served("deaf", "silent");
}

#[test]
fn a_guest_that_gives_one_frame_every_five_seconds() {
    expect_others_served("slow", "shrinking");
}

/// Whoever asks for more than is left beside a guest that keeps what it has gets what is left.
#[track_caller]
fn expect_others_served(deed: &str, state: &str) {
    const POOL_MIB: u64 = 384;
    let stubborn = Member { min_mib: 32, max_mib: 256, ..member("stubborn", deed) };
    let below_target = Member {
        name: "below_target",
        image: app_image("memwalk"),
        min_mib: 32,
        max_mib: 256,
        command_line: "phases=16M:4s,240M:100s",
    };
    let mut fleet = FleetPlan::pool_mib(POOL_MIB).with(&stubborn).with(&below_target).with(&neighbour()).up(None);
    fleet.wait_for("lower target for the stubborn guest", |fleet| {
        line_with(&fleet.events(), &["stubborn target from", "fair share"])
    });
    fleet.wait_for_line(&["  stubborn ", &format!("  {state} ")]);
    let run = end(fleet);
    run.expect_unharmed("below_target");
    let samples = run.guest("below_target")["samples"].clone();
    let largest = samples.as_array().into_iter().flatten().filter_map(|sample| sample["size_mib"].as_u64()).max();
    // The stubborn guest holds more than its share, some 178 MiB, and the neighbour 48.
    assert!(largest.is_some_and(|mib| (128..=POOL_MIB - 168 - 48).contains(&mib)), "{largest:?} MiB\n{run}");
}

fn member<'a>(name: &'a str, deed: &'a str) -> Member<'a> {
    Member { name, image: guest_image("hostile"), min_mib: MEMORY_MIB, max_mib: MEMORY_MIB, command_line: deed }
}

/// Walks up and down within its minimum.
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

/// Sees that the neighbour is still at it, and ends the fleet.
#[track_caller]
fn end(mut fleet: Fleet) -> Run {
    let count = |fleet: &Fleet| fleet.printed().matches("  neighbour ").count();
    let before = count(&fleet);
    fleet.wait_for("line more about the neighbour", |fleet| (count(fleet) > before + 1).then_some(()));
    fleet.signal(Receiver::Supervisor, Signal::INT);
    let run = fleet.wait_for_end(END_PATIENCE);
    run.expect_unharmed("neighbour");
    assert_eq!(run.report()["violations"], 0, "{run}");
    assert!(!run.output.stderr.contains("panicked"), "{run}");
    run
}
