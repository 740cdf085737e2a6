//! The handle against a fake QEMU.

mod fake;

use std::thread;
use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use serde_json::json;

use self::fake::{Fake, Fault, statistics};
use super::connection::Socket;
use super::{AttachError, QemuGuest};
use crate::clock::Moment;
use crate::fleet::DetachRule;
use crate::host::{Confinement, EndReason, GuestEvent, GuestHandle, Observation, Origin, Reports};

const fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// Attaches a fake, which runs in this very process.
fn attach(fake: &Fake, rule: DetachRule) -> Result<QemuGuest, AttachError> {
    let connection = Socket::At(fake.path().to_owned()).connect(Moment::now()).unwrap();
    QemuGuest::attach_over(connection, fake.path().to_owned(), rule)
}

/// Waits until `value` returns something. A fault that is never found hangs the test.
fn wait_for<T>(mut value: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(value) = value() {
            return value;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_observation(guest: &QemuGuest, is_it: impl Fn(&Observation) -> bool) -> Observation {
    wait_for(|| Some(guest.observe()).filter(&is_it))
}

fn next_problem(guest: &mut QemuGuest) -> String {
    wait_for(|| match guest.next_event() {
        Some(GuestEvent::Problem(what)) => Some(what),
        Some(event) => panic!("{event:?}"),
        None => None,
    })
}

fn next_ending(guest: &mut QemuGuest) -> EndReason {
    wait_for(|| match guest.next_event()? {
        GuestEvent::Ended(ending) => Some(ending.reason),
        _ => None,
    })
}

#[test]
fn an_attached_machine_tells_what_it_is() {
    let fake = Fake::start(Fault::None);
    fake.set(|state| state.size_bytes = 600 << 20);
    let guest = attach(&fake, DetachRule::Deflate).unwrap();
    assert_eq!(guest.origin(), Origin::Found { machine: mib(1024), size: mib(600) });
    assert_eq!(guest.confinement(), Confinement::ByGuest);
    let observation = guest.observe();
    assert_eq!((observation.size, observation.balloon), (Some(mib(600)), Some(mib(424))));
    assert_eq!((observation.reports, observation.statistics), (Reports::Awaited, None), "unknown is not zero");
    assert!(observation.running.is_some() && observation.last_call.is_some() && observation.main.is_none());
    assert!(fake.sizes_set().is_empty(), "its size is left alone");
    assert!(guest.measure_resident().unwrap() > FrameCount::ZERO);

    fake.set(|state| state.statistics = statistics(7, 560, 200));
    let observation = wait_for_observation(&guest, |observation| observation.statistics.is_some());
    let Reports::Derived(usage) = observation.reports else { panic!("{observation:?}") };
    assert!(usage.used > mib(400) && usage.used < mib(480), "{usage:?}");
    assert_eq!(fake.set(|state| state.interval), 1, "QEMU was told to ask the driver");
}

#[test]
fn a_machine_is_paused_and_goes_on_also_when_it_is_left() {
    let fake = Fake::start(Fault::None);
    let mut guest = attach(&fake, DetachRule::Keep).unwrap();
    let motions = |fake: &Fake| {
        let commands = fake.set(|state| state.commands.clone()).into_iter().map(|(name, _)| name);
        commands.filter(|name| name == "stop" || name == "cont").collect::<Vec<_>>()
    };
    let wait_for_motions = |expected: &[&str]| wait_for(|| (motions(&fake) == expected).then_some(()));
    guest.pause();
    wait_for_motions(&["stop"]);
    guest.resume();
    wait_for_motions(&["stop", "cont"]);
    guest.pause();
    wait_for_motions(&["stop", "cont", "stop"]);
    guest.request_stop();
    assert_eq!(next_ending(&mut guest), EndReason::Detached);
    assert_eq!(motions(&fake), ["stop", "cont", "stop", "cont"]);
}

#[test]
fn a_target_is_set_and_acknowledged() {
    let fake = Fake::start(Fault::None);
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    assert_eq!(guest.observe().acknowledged, Some(Epoch::FIRST));
    guest.send_target(mib(512), Epoch(2));
    let observation = wait_for_observation(&guest, |observation| observation.acknowledged == Some(Epoch(2)));
    assert!(observation.size.is_some());
    wait_for_observation(&guest, |observation| observation.size == Some(mib(512)));
    assert_eq!(fake.sizes_set(), [512]);
}

#[test]
fn an_event_is_as_good_as_an_answer() {
    let fake = Fake::start(Fault::Deaf);
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    guest.send_target(mib(512), Epoch(2));
    wait_for_observation(&guest, |observation| observation.acknowledged == Some(Epoch(2)));
    assert_eq!(guest.observe().size, Some(mib(1024)), "a guest that does not follow");
    fake.set(|state| state.size_bytes = 700 << 20);
    fake.send(&json!({ "event": "BALLOON_CHANGE", "data": { "actual": 700_u64 << 20 } }));
    wait_for_observation(&guest, |observation| observation.size == Some(mib(700)));
    fake.send(&json!({ "event": "STOP" }));
    fake.send(&json!({ "event": "GUEST_PANICKED" }));
    assert_eq!(next_problem(&mut guest), "the guest's kernel has panicked");
}

#[test]
fn a_connection_that_is_closed_in_a_command_is_made_again() {
    let fake = Fake::start(Fault::CloseAt("balloon"));
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    guest.send_target(mib(512), Epoch(2));
    let problem = next_problem(&mut guest);
    assert_eq!(problem, "QEMU has closed the connection before it answered balloon; trying again");
    wait_for_observation(&guest, |observation| observation.acknowledged == Some(Epoch(2)));
    assert_eq!(fake.sizes_set(), [512, 512], "it may not have arrived");
    fake.hang_up();
    assert!(next_problem(&mut guest).starts_with("QEMU has closed the connection"));
    guest.send_target(mib(256), Epoch(3));
    let observation = wait_for_observation(&guest, |observation| observation.acknowledged == Some(Epoch(3)));
    assert!(observation.size.is_some(), "what is known stays known");
}

#[test]
fn a_balloon_that_another_program_sets_is_left_to_it() {
    let fake = Fake::start(Fault::None);
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    guest.send_target(mib(512), Epoch(2));
    wait_for_observation(&guest, |observation| observation.size == Some(mib(512)));
    for size in [800_u64, 700] {
        fake.set(|state| state.size_bytes = size << 20);
        wait_for_observation(&guest, |observation| observation.size == Some(mib(size)));
    }
    let problem = next_problem(&mut guest);
    assert!(problem.starts_with("the guest has left its target 512.0 MiB for 800.0 MiB: another program"), "{problem}");
    assert_eq!((guest.next_event(), fake.sizes_set()), (None, vec![512]), "it is said once, and not fought");
    guest.send_target(mib(256), Epoch(3));
    wait_for_observation(&guest, |observation| observation.size == Some(mib(256)));
}

#[test]
fn a_machine_without_a_balloon_has_a_fixed_size() {
    let fake = Fake::start(Fault::None);
    fake.set(|state| state.has_balloon = false);
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    let problem = next_problem(&mut guest);
    let expected = "the machine has no virtio-balloon device; it counts as a guest of fixed size, 1024.0 MiB";
    assert_eq!(problem, expected);
    let observation = guest.observe();
    assert_eq!((observation.reports, observation.size), (Reports::Never, Some(mib(1024))));
    guest.send_target(mib(512), Epoch(2));
    wait_for_observation(&guest, |observation| observation.acknowledged == Some(Epoch(2)));
    assert!(fake.sizes_set().is_empty());
    guest.request_stop();
    assert_eq!(next_ending(&mut guest), EndReason::Detached);
}

#[test]
fn a_machine_is_left_with_the_balloon_as_the_rule_says() {
    for (rule, sizes) in [(DetachRule::Deflate, vec![512, 1024]), (DetachRule::Keep, vec![512])] {
        let fake = Fake::start(Fault::None);
        let mut guest = attach(&fake, rule).unwrap();
        guest.send_target(mib(512), Epoch(2));
        wait_for_observation(&guest, |observation| observation.size == Some(mib(512)));
        guest.request_stop();
        assert_eq!(next_ending(&mut guest), EndReason::Detached);
        assert_eq!(guest.next_event(), None);
        assert_eq!((fake.sizes_set(), fake.set(|state| state.interval)), (sizes, 0), "{rule:?}");
    }
}

#[test]
fn a_machine_that_is_killed_or_left_is_told_nothing() {
    let fake = Fake::start(Fault::None);
    let mut guest = attach(&fake, DetachRule::Deflate).unwrap();
    guest.kill();
    assert_eq!(next_ending(&mut guest), EndReason::Detached);
    attach(&fake, DetachRule::Deflate).unwrap().leave();
    assert!(fake.sizes_set().is_empty());
    assert!(!fake.set(|state| state.commands.iter().any(|(name, _)| name == "quit")));
}

#[test]
fn what_is_no_qemu_is_refused_in_one_line() {
    let refused = |fault: Fault| attach(&Fake::start(fault), DetachRule::Deflate).unwrap_err().to_string();
    for (fault, expected) in [
        (Fault::Banner("220 mail ready"), "the socket does not speak QMP, it begins with \"220 mail ready\""),
        (Fault::Banner("{\"QMP\": {\"version\": {\"qemu\": {\"major\": 2}}}}"), "QEMU has version 2; take version"),
        (Fault::Garbage("<html>"), "QEMU sent what is no QMP: \"<html>\""),
        (Fault::Garbage("{\"return\": {}, \"id\": 77}"), "QEMU answered what was not asked"),
        (Fault::EndlessLine, "QEMU sent a line that has no end"),
        (Fault::CloseAt("qmp_capabilities"), "QEMU has closed the connection before it answered qmp_capabilities"),
        (Fault::CloseAt("query-balloon"), "QEMU has closed the connection before it answered query-balloon"),
    ] {
        let message = refused(fault.clone());
        assert!(message.contains(&format!("qmp can't be used: {expected}")), "{fault:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_socket_that_is_not_there_is_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm.qmp");
    let refused =
        |path: &std::path::Path| QemuGuest::attach(path.to_owned(), DetachRule::Deflate).unwrap_err().to_string();
    assert!(refused(&path).contains("vm.qmp does not exist; start the machine with -qmp"), "{}", refused(&path));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(refused(&path).contains("vm.qmp refuses the connection"), "{}", refused(&path));
    let long = folder.path().join("x".repeat(200));
    assert!(refused(&long).contains("can't be used: "), "{}", refused(&long));
    let own = Fake::start(Fault::None);
    assert!(refused(own.path()).contains("belongs to this program"), "{}", refused(own.path()));
}
