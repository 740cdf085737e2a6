//! Tests VMM processes with real, tiny guests. Needs `/dev/kvm`.
//!
//! The tests wait for what the other side reports, never for a fixed time.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/bench.rs"]
mod bench;
#[path = "vmm/disks.rs"]
mod disks;
#[path = "support/elf.rs"]
mod elf;
#[expect(dead_code, reason = "the metrics use the rest")]
#[path = "support/guests.rs"]
mod guests;
#[path = "vmm/memory_limit.rs"]
mod memory_limit;
#[path = "vmm/succession.rs"]
mod succession;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use aerostat::host::vmm_guest::{GuestConfig, SpawnError, VmmGuest};
use aerostat::host::{EndReason, Ending, GuestEvent, GuestHandle};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::BootStage;
use aerostat_abi::units::FrameCount;

use bench::{Bench, PATIENCE, SUCCESS, end, next};

/// Waits until `condition` holds for the facts in the guest's page.
fn until(guest: &mut VmmGuest, condition: impl Fn(&VmmGuest) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition(guest) {
        assert_eq!(guest.next_event(), None);
        assert!(Instant::now() < deadline, "it never came: {:?}", guest.registers().facts());
        std::thread::yield_now();
    }
}

fn negotiated(guest: &VmmGuest) -> bool {
    guest.registers().facts().port_calls > 0
}

/// One guest computes for ever, and one sleeps for ever.
#[test]
fn a_guest_that_hangs_can_be_asked_where_it_is() {
    for code in [&[0xeb, 0xfe][..], &[0xf4, 0xeb, 0xfd]] {
        let bench = Bench::new(code);
        let mut guest = bench.spawn();
        for _ in 0..2 {
            guest.inspect();
            let GuestEvent::Inspected(lines) = next(&mut guest) else { panic!("it has nothing else to say") };
            // The image has three bytes of code at most.
            assert!(lines[0].starts_with("RIP 000000000020000"), "{lines:#?}");
            let place = lines.iter().position(|line| line == "backtrace:").unwrap();
            assert!(lines[place + 1].starts_with("  0x20000"), "{lines:#?}");
        }
        guest.request_stop();
        assert_eq!(end(&mut guest).reason, EndReason::Stopped);
    }
}

/// A log that is used again belongs to the latest run.
#[test]
fn each_run_has_its_own_log() {
    let bench = Bench::new(guests::boots());
    for _ in 0..2 {
        assert_eq!(end(&mut bench.spawn()), SUCCESS);
        assert_eq!(bench.log(), "hello\n");
    }
}

#[test]
fn a_guest_boots_speaks_and_ends() {
    let bench = Bench::new(guests::boots());
    let mut guest = bench.spawn();
    assert_eq!(end(&mut guest), SUCCESS);
    assert_eq!(bench.log(), "hello\n");
    let mut last = guest.spawned_at_ns();
    for stage in BootStage::ALL {
        let time = guest.registers().boot_ns(stage);
        assert!(time > last, "{stage:?} comes in its turn");
        last = time;
    }
}

#[test]
fn guests_of_all_sizes_boot() {
    for mib in [4, 6, 3 << 10, (3 << 10) + 2, 9 << 10, 64 << 10] {
        let mut bench = Bench::new(guests::boots());
        bench.config.memory = FrameCount::from_mib(mib);
        bench.config.initial_grant = FrameCount::from_mib(4);
        let mut guest = bench.spawn();
        assert_eq!(end(&mut guest), SUCCESS, "{mib} MiB");
        assert_eq!(guest.registers().facts().balloon, FrameCount::from_mib(mib - 4));
    }
}

/// KVM learns of memory beyond the first GiB when the guest gets it.
#[test]
fn a_small_guest_of_a_large_machine_grows() {
    let mut bench = Bench::new(guests::deflates_far_away());
    bench.config.memory = FrameCount::from_mib(511 << 10);
    bench.config.initial_grant = FrameCount::from_mib(16);
    bench.config.log = None;
    let mut guest = bench.spawn();
    guest.set_target(FrameCount::from_mib(18));
    assert_eq!(end(&mut guest), SUCCESS);
    assert_eq!(guest.registers().facts().size, FrameCount::from_mib(18));
}

#[test]
fn a_panic_comes_with_the_last_lines() {
    let ending = end(&mut Bench::new(guests::panics()).spawn());
    assert_eq!(ending, Ending { reason: EndReason::Exited(GuestExit::Panic), details: vec!["| alas".to_owned()] });
}

#[test]
fn memory_is_inflated_and_deflated() {
    let mut guest = Bench::new(guests::inflates_and_deflates()).spawn();
    assert_eq!(end(&mut guest), SUCCESS);
    let facts = guest.registers().facts();
    assert_eq!((facts.inflated.0, facts.deflated.0, facts.all_refused_entries()), (513, 512, 1));
    assert_eq!((facts.balloon.0, facts.port_calls), (1, 3));
}

#[test]
fn a_triple_fault_is_explained() {
    let ending = end(&mut Bench::new(guests::falls()).spawn());
    assert_eq!(ending.reason, EndReason::Fault("triple fault".to_owned()));
    let text = ending.details.join("\n");
    assert!(text.contains("RIP ") && text.contains("CR2 ") && text.contains("| about to fall"), "{text}");
}

#[test]
fn invalid_accesses_do_no_harm_and_are_counted() {
    let mut bench = Bench::new(guests::pokes_about());
    bench.config.memory = FrameCount::from_mib(16);
    bench.config.initial_grant = FrameCount::from_mib(16);
    let mut guest = bench.spawn();
    let ending = end(&mut guest);
    assert!(matches!(ending.reason, EndReason::Fault(_)), "{ending:?}");
    let counts = ending.details.iter().find(|line| line.starts_with("ignored")).unwrap();
    assert_eq!(counts, "ignored: 8 port and 2 memory accesses");
    assert_eq!(guest.registers().facts().port_calls, 0);
}

#[test]
fn a_guest_stops_when_asked() {
    for code in [guests::spins(), guests::halts()] {
        let mut guest = Bench::new(code).spawn();
        until(&mut guest, |guest| guest.registers().boot_ns(BootStage::Loaded) > 0);
        guest.request_stop();
        assert_eq!(end(&mut guest), Ending { reason: EndReason::Stopped, details: Vec::new() });
    }
}

#[test]
fn a_guest_that_calls_too_often_waits_and_can_be_stopped_meanwhile() {
    let mut guest = Bench::new(guests::nags()).spawn();
    let began = Instant::now();
    until(&mut guest, |guest| {
        let facts = guest.registers().facts();
        facts.throttled_calls > 100 && facts.throttled_ns >= 20 * 1_000_000
    });
    let facts = guest.registers().facts();
    let allowed = 16_000.0 + 4_000.0 * began.elapsed().as_secs_f64() + 10.0;
    assert!(u32::try_from(facts.port_calls).is_ok_and(|calls| f64::from(calls) <= allowed), "{facts:?}");
    guest.request_stop();
    assert_eq!(end(&mut guest), Ending { reason: EndReason::Stopped, details: Vec::new() });
}

#[test]
fn a_killed_process_is_noticed() {
    let mut guest = Bench::new(guests::spins()).spawn();
    until(&mut guest, negotiated);
    guest.kill();
    assert_eq!(end(&mut guest).reason, EndReason::Killed(9));
    guest.kill();
    guest.request_stop();
    guest.set_target(FrameCount(1));
}

#[test]
fn a_dropped_guest_is_gone() {
    let mut guest = Bench::new(guests::spins()).spawn();
    until(&mut guest, negotiated);
    let process = PathBuf::from(format!("/proc/{}", guest.pid()));
    assert!(process.exists());
    drop(guest);
    assert!(!process.exists());
}

#[test]
fn pressure_is_passed_on_and_statistics_are_copied() {
    let mut guest = Bench::new(guests::presses()).spawn();
    assert_eq!(next(&mut guest), GuestEvent::Pressure);
    let statistics = guest.registers().statistics();
    assert_eq!((statistics.wanted_bytes, statistics.activity.as_str()), (77, "x"));
}

#[test]
fn the_doorbell_reaches_the_guest() {
    let mut guest = Bench::new(guests::listens()).spawn();
    until(&mut guest, |guest| guest.registers().boot_ns(BootStage::Kernel) > 0);
    guest.set_target(FrameCount(1000));
    assert_eq!(end(&mut guest), SUCCESS);
}

#[test]
fn all_that_is_written_arrives_while_the_guest_computes() {
    let bench = Bench::new(guests::talks());
    let mut guest = bench.spawn();
    until(&mut guest, |_| bench.log().len() == 10_000);
    assert_eq!(bench.log(), "ten bytes\n".repeat(1000));
}

#[test]
fn resident_memory_is_what_smaps_says() {
    let mut guest = Bench::new(guests::touches()).spawn();
    until(&mut guest, |guest| guest.registers().boot_ns(BootStage::Kernel) > 0);
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", guest.pid())).unwrap();
    let largest = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("Rss:"))
        .filter_map(|field| field.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let behind_guest = FrameCount::from_bytes_floor(largest.max().unwrap() << 10);
    assert!(behind_guest >= FrameCount::from_mib(64), "{behind_guest}");
    // The latest sample may be from before the guest was ready; the next one is not.
    until(&mut guest, |guest| guest.registers().facts().resident.0.abs_diff(behind_guest.0) < 64);
}

#[test]
fn invalid_settings_are_refused_before_a_start() {
    let refused = |change: fn(&mut GuestConfig)| {
        let mut bench = Bench::new(guests::success());
        change(&mut bench.config);
        VmmGuest::spawn(&bench.config).unwrap_err()
    };
    assert!(matches!(refused(|config| config.image = "/nowhere".into()), SpawnError::Image { .. }));
    assert!(matches!(refused(|config| config.memory = FrameCount(1)), SpawnError::Layout(_)));
    assert!(matches!(refused(|config| config.memory = FrameCount(2048)), SpawnError::GrantTooLarge { .. }));
    assert!(matches!(refused(|config| config.initial_grant = FrameCount(512)), SpawnError::GrantTooSmall { .. }));
    assert!(matches!(refused(|config| config.command_line.push('\0')), SpawnError::CommandLine));
    assert!(matches!(refused(|config| config.log = Some("/nowhere/log".into())), SpawnError::Log { .. }));
    let error = refused(|config| config.program = "/nowhere/aerostat".into());
    assert_eq!(
        error.to_string(),
        "the guest's process can't be started from /nowhere/aerostat: No such file or directory (os error 2)"
    );
}

#[test]
fn a_process_that_says_nothing_has_failed() {
    let mut bench = Bench::new(guests::success());
    bench.config.program = "/bin/true".into();
    let ending = end(&mut bench.spawn());
    assert!(matches!(ending.reason, EndReason::Failed(_)), "{ending:?}");
}

/// A problem that does not end the guest becomes an event, with one line of text without control
/// characters. A process that reports more of them than an honest one is ended.
#[test]
fn problems_are_reported_and_bounded() {
    let mut bench = Bench::new(guests::success());
    let message = r#"{"Problem":{"what":"no\u001b interrupt\nfor it"}}"#;
    bench.config.program = bench
        .program_of(&format!("printf '%s' '{message}' >&0; while :; do printf '%s' '{message}' >&0 || exit; done"));
    let mut guest = bench.spawn();
    assert_eq!(next(&mut guest), GuestEvent::Problem("no\u{fffd} interrupt\u{fffd}for it".into()));
    let rest: Vec<_> = std::iter::from_fn(|| match next(&mut guest) {
        GuestEvent::Problem(_) => Some(()),
        GuestEvent::Ended(ending) => {
            assert_eq!(ending.reason, EndReason::Failed("its process floods the link".into()));
            None
        }
        other => panic!("{other:?}"),
    })
    .collect();
    assert_eq!(rest.len(), 3);
}

/// Set in the process that [`guests_die_with_their_supervisor`] starts from this same file, for it
/// to be the supervisor.
const AS_SUPERVISOR: &str = "AEROSTAT_TEST_AS_SUPERVISOR";

#[test]
fn guests_die_with_their_supervisor() {
    if std::env::var_os(AS_SUPERVISOR).is_some() {
        return be_a_supervisor();
    }
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "guests_die_with_their_supervisor", "--nocapture"])
        .env(AS_SUPERVISOR, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines().map(Result::unwrap);
    let process = lines.find_map(|line| line.split_once("guest ").map(|(_, pid)| pid.to_owned())).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    // Its new parent may take its time to reap it: a zombie is dead enough.
    while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "the guest's process outlives its supervisor");
        std::thread::yield_now();
    }
}

/// Starts a guest, prints its process's number and waits for the end.
fn be_a_supervisor() {
    let guest = Bench::new(guests::spins()).spawn();
    println!("guest {}", guest.pid());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
