//! Malicious VMM processes, each beside an honest one: the supervisor serves the other guest as
//! before, and ends in order.
//!
//! The honest guest needs a target far above its minimum, so it can do its work only if the
//! supervisor samples it and decides.

use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use aerostat::fleet::{Fleet, GuestSpec, Machine, OveruseRule, RestartRule};
use aerostat::host::EndReason;
use aerostat::host::disk::Disks;
use aerostat::host::vmm_guest::VmmGuest;
use aerostat::scheduler::{IdleTax, Limits, Subscription};
use aerostat::supervisor::{Event, EventKind, FleetStatus, GuestOutcome, Observer, RunOptions, run};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::DEADLINE;
use aerostat_tests::environment::{aerostat_vmm, app_image};

const HONEST: &str = "honest";

/// The result of a fleet of a hostile and an honest guest.
struct Outcomes {
    hostile: GuestOutcome,
    /// The number of targets that the hostile guest got.
    targets: usize,
    /// The number of events that say that the hostile guest ended.
    ends: usize,
}

#[test]
fn a_silent_process_is_killed_at_the_end() {
    expect_killed_at_the_end("silent");
}

#[test]
fn a_flood_of_pressure_is_a_fault() {
    expect_fault("presses", "its process floods the link");
}

#[test]
fn a_flood_of_ends_counts_once() {
    let outcomes = run_beside_honest("ends_without_end");
    assert_eq!(outcomes.hostile.ending.reason, EndReason::Exited(GuestExit::Success));
    assert_eq!(outcomes.ends, 1);
}

#[test]
fn a_process_that_lives_on_after_its_end_has_ended() {
    let outcomes = run_beside_honest("ends_twice_and_stays");
    assert_eq!(outcomes.hostile.ending.reason, EndReason::Exited(GuestExit::Success), "the first message counts");
    assert_eq!(outcomes.ends, 1);
}

#[test]
fn an_end_before_the_start_is_a_fault() {
    expect_fault("ends_unstarted", "nothing had asked it to");
}

#[test]
fn malformed_messages_are_faults() {
    for deed in ["garbles", "says_half", "says_nothing_at_length", "says_nothing"] {
        expect_fault(deed, "makes no sense");
    }
}

#[test]
fn a_process_that_closes_its_link_is_a_fault() {
    expect_fault("hangs_up", "closed the link and did not end");
}

#[test]
fn passed_descriptors_are_a_fault_and_block_nothing() {
    expect_fault("passes_descriptors", "descriptors");
    let outcomes = run_beside_honest("ends_and_passes_descriptors");
    assert_eq!(outcomes.hostile.ending.reason, EndReason::Exited(GuestExit::Success));
}

#[test]
fn acknowledging_a_future_target_is_a_fault() {
    expect_fault("acknowledges_the_future", "acknowledged a target that was never set");
}

#[test]
fn a_full_doorbell_does_not_block_the_supervisor() {
    let outcomes = run_beside_honest("blocks_the_doorbell");
    assert!(outcomes.targets >= 2, "it got {} targets", outcomes.targets);
}

#[track_caller]
fn expect_fault(deed: &'static str, words: &str) {
    let reason = run_beside_honest(deed).hostile.ending.reason;
    assert!(matches!(&reason, EndReason::Failed(why) if why.contains(words)), "{deed}: {reason}");
}

#[track_caller]
fn expect_killed_at_the_end(deed: &'static str) {
    let reason = run_beside_honest(deed).hostile.ending.reason;
    assert_eq!(reason, EndReason::Killed(9), "{deed}: {reason}");
}

/// Runs a fleet whose first guest does `deed` and whose second is honest, until the honest one has
/// ended. Asserts that the honest one did its work.
#[track_caller]
fn run_beside_honest(deed: &'static str) -> Outcomes {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        // An error means that the deadline has passed and the test has failed.
        let _ = sender.send(run_fleet(deed));
    });
    let received = receiver.recv_timeout(DEADLINE);
    let (outcomes, honest) = received.unwrap_or_else(|_| panic!("{deed}: the supervisor is blocked"));
    assert_eq!(honest.ending.reason, EndReason::Exited(GuestExit::Success), "{deed}: {}", honest.ending.reason);
    let app = honest.app.expect("its application reports");
    assert_eq!(app.errors, 0, "{deed}");
    assert!(app.verified_bytes >= 160 << 20, "{deed}: the honest guest verified {} bytes", app.verified_bytes);
    outcomes
}

fn run_fleet(deed: &str) -> (Outcomes, GuestOutcome) {
    let guests = vec![spec(deed, 128, ""), spec(HONEST, 256, "phases=16M:100ms,160M:100ms,16M:300ms,160M:100ms")];
    let fleet = Fleet { pool: FrameCount::from_mib(320), idle_tax: IdleTax::default(), guests };
    let options = RunOptions {
        limit: Some(Duration::from_secs(5)),
        stop_patience: Duration::from_millis(500),
        ..RunOptions::default()
    };
    let mut notes = Notes { deed, targets: 0, ends: 0 };
    let outcome = run(&fleet, options, start, &mut notes).expect("the fleet starts");
    let mut guests = outcome.guests.into_iter();
    let hostile = guests.next().expect("the first guest");
    (Outcomes { hostile, targets: notes.targets, ends: notes.ends }, guests.next().expect("the second guest"))
}

fn spec(name: &str, max_mib: u64, command_line: &str) -> GuestSpec {
    GuestSpec {
        name: name.to_owned(),
        machine: Machine::Aerostat,
        image: app_image("memwalk"),
        limits: Limits { min: FrameCount::from_mib(48), max: FrameCount::from_mib(max_mib) },
        command_line: command_line.to_owned(),
        disks: Disks::default(),
        subscription: Subscription::default(),
        overuse: OveruseRule::Kill,
        restart: RestartRule::Never,
        balloon_rate: None,
    }
}

fn start(spec: &GuestSpec, target: FrameCount) -> anyhow::Result<VmmGuest> {
    let program =
        if spec.name == HONEST { aerostat_vmm() } else { PathBuf::from(env!("CARGO_BIN_EXE_aerostat-hostile-vmm")) };
    Ok(VmmGuest::spawn(&spec.config(target, program))?)
}

/// Counts the events about the hostile guest.
struct Notes<'a> {
    deed: &'a str,
    targets: usize,
    ends: usize,
}

impl Observer for Notes<'_> {
    fn on_event(&mut self, event: &Event) {
        match &event.what {
            EventKind::Target { guest, .. } if guest == self.deed => self.targets += 1,
            EventKind::Ended { guest, .. } if guest == self.deed => self.ends += 1,
            _ => {}
        }
    }

    fn on_poll(&mut self, _: &FleetStatus) {}
}
