//! Malicious VMM processes beside an honest one: the supervisor ends each for the right reason,
//! serves the honest guest as before, keeps its own rounds short, and ends in order.
//!
//! The honest guest needs a target far above its minimum, so it can do its work only if the
//! supervisor samples it and decides.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use aerostat::fleet::Fleet;
use aerostat::host::EndReason;
use aerostat::host::vmm_guest::VmmGuest;
use aerostat::scheduler::IdleTax;
use aerostat::supervisor::{Event, EventKind, FleetStatus, GuestOutcome, Observer, Outcome, RunOptions, run};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::units::FrameCount;
use aerostat_tests::DEADLINE;
use aerostat_tests::hostile_vmm::{DEEDS, Deed, End, HONEST, config, honest, hostile};

/// The hostile processes at a time.
const AT_A_TIME: usize = 14;
/// The longest that a round of the supervisor may take, waits for a processor aside.
const MOST_OF_A_ROUND: Duration = Duration::from_millis(50);

#[test]
fn hostile_processes_end_and_harm_only_themselves() {
    for deeds in DEEDS.chunks(AT_A_TIME) {
        run_beside_honest(deeds);
    }
}

#[test]
fn a_full_doorbell_does_not_block_the_supervisor() {
    let notes = run_beside_honest(&only("blocks_the_doorbell"));
    let targets = notes.targets.get("blocks_the_doorbell").copied().unwrap_or_default();
    assert!(targets >= 2, "it got {targets} targets");
}

fn only(name: &str) -> Vec<Deed> {
    DEEDS.iter().filter(|deed| deed.name == name).copied().collect()
}

/// Runs a fleet of hostile guests and an honest one, until the honest one has ended. Asserts that
/// the honest one did its work, that the others ended as they should, and that no round of the
/// supervisor was long.
#[track_caller]
fn run_beside_honest(deeds: &[Deed]) -> Notes {
    let (sender, receiver) = channel();
    let fleet = deeds.to_vec();
    thread::spawn(move || {
        // An error means that the deadline has passed and the test has failed.
        let _ = sender.send(run_fleet(&fleet));
    });
    let received = receiver.recv_timeout(DEADLINE);
    let (outcome, notes) = received.unwrap_or_else(|_| panic!("{deeds:?}: the supervisor is blocked"));
    let outcome_of = |name: &str| outcome.guests.iter().find(|guest| guest.name == name).expect("a guest of the fleet");
    expect_unharmed(outcome_of(HONEST));
    for deed in deeds {
        expect_end(deed, &outcome_of(deed.name).ending.reason);
        assert_eq!(notes.ends.get(deed.name), Some(&1), "{}: its end is told once", deed.name);
    }
    assert!(outcome.loop_times.longest_own < MOST_OF_A_ROUND, "{:?}", outcome.loop_times);
    assert_eq!(outcome.violations, 0);
    notes
}

#[track_caller]
fn expect_unharmed(honest: &GuestOutcome) {
    assert_eq!(honest.ending.reason, EndReason::Exited(GuestExit::Success), "{}", honest.ending.reason);
    let app = honest.app.expect("its application reports");
    assert_eq!(app.errors, 0);
    assert!(app.verified_bytes >= 160 << 20, "the honest guest verified {} bytes", app.verified_bytes);
}

#[track_caller]
fn expect_end(deed: &Deed, reason: &EndReason) {
    let is_expected = match deed.end {
        End::Fault(words) => matches!(reason, EndReason::Failed(why) if why.contains(words)),
        End::Success => *reason == EndReason::Exited(GuestExit::Success),
        End::Killed => *reason == EndReason::Killed(9),
        End::BeyondSize => matches!(reason, EndReason::BeyondSize(_)),
        End::Any => true,
    };
    assert!(is_expected, "{deed:?}: {reason}");
}

fn run_fleet(deeds: &[Deed]) -> (Outcome, Notes) {
    let honest = honest("phases=16M:100ms,160M:100ms,16M:300ms,160M:100ms,16M:1s,160M:100ms");
    let most = |total: FrameCount, guest: &aerostat::fleet::GuestSpec| total.saturating_add(guest.limits.max);
    let guests: Vec<_> = deeds.iter().map(hostile).chain([honest]).collect();
    // Room for nearly all of them: what one needs, others have to release.
    let pool = guests.iter().fold(FrameCount::ZERO, most).saturating_sub(FrameCount::from_mib(48));
    let fleet = Fleet { pool, idle_tax: IdleTax::default(), guests };
    let options = RunOptions {
        limit: Some(Duration::from_secs(5)),
        stop_patience: Duration::from_millis(500),
        ..RunOptions::default()
    };
    let hostile_vmm = PathBuf::from(env!("CARGO_BIN_EXE_aerostat-hostile-vmm"));
    let start = move |spec: &_, target| Ok(VmmGuest::spawn(&config(spec, target, hostile_vmm.clone()))?);
    let mut notes = Notes::default();
    let outcome = run(&fleet, options, start, &mut notes).expect("the fleet starts");
    (outcome, notes)
}

/// Counts the events about each guest.
#[derive(Default)]
struct Notes {
    targets: BTreeMap<String, usize>,
    ends: BTreeMap<String, usize>,
}

impl Observer for Notes {
    fn on_event(&mut self, event: &Event) {
        match &event.what {
            EventKind::Target { guest, .. } => *self.targets.entry(guest.clone()).or_default() += 1,
            EventKind::Ended { guest, .. } => *self.ends.entry(guest.clone()).or_default() += 1,
            _ => {}
        }
    }

    fn on_poll(&mut self, _: &FleetStatus) {}
}
