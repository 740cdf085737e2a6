//! Guests whose supervisor is killed, and the next one.
//!
//! The supervisor that is killed is another process of this same program, so that its guests are
//! not this process's children.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use aerostat::fleet::{Fleet, GuestSpec};
use aerostat::host::run_directory::{FleetName, RunDirectory};
use aerostat::host::vmm_guest::{
    AdoptError, Adopted, GuestConfig, SpawnError, Succession, Survivor, VmmGuest, find_survivors,
};
use aerostat::host::{EndReason, Ending, GuestEvent, GuestHandle};
use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::{BootStage, Epoch};
use aerostat_abi::units::FrameCount;
use aerostat_link::Link;
use aerostat_link::handshake::{Answer, Hello, Verdict, Versions};
use aerostat_link::message::{FromVmm, Standing};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{PATIENCE, SUCCESS, next, program};
use crate::{elf, guests, negotiated, until};

/// Set in the process that is to be the supervisor: the directory; to start the guest, the lease in
/// milliseconds, and what it waits for ([`Stage::name`]).
const AS_SUPERVISOR: &str = "AEROSTAT_TEST_SUPERVISOR_OF";
const LEASE_MS: &str = "AEROSTAT_TEST_LEASE_MS";
const READY: &str = "AEROSTAT_TEST_READY";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(300);

/// How far a guest has come.
#[derive(Clone, Copy)]
enum Stage {
    /// It has used its balloon port.
    Negotiated,
    /// It has set its first boot mark.
    Marked,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Negotiated => "negotiated",
            Self::Marked => "marked",
        }
    }

    fn is_reached(self, guest: &VmmGuest) -> bool {
        match self {
            Self::Negotiated => negotiated(guest),
            Self::Marked => guest.registers().boot_ns(BootStage::Kernel) > 0,
        }
    }
}

/// A directory with a fleet of one tiny guest.
struct Bench(tempfile::TempDir);

impl Bench {
    /// A guest of 64 MiB in a machine of 128 MiB.
    fn new(code: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("guest"), elf::image(code, 0x1_0000)).unwrap();
        let text = "pool = \"128M\"\n[[guest]]\nname = \"tiny\"\nimage = \"guest\"\nmin = \"64M\"\nmax = \"128M\"\n";
        fs::write(directory.path().join("fleet.toml"), text).unwrap();
        Self(directory)
    }

    /// Has a supervisor start the guest, waits until it has come to `stage`, and kills the
    /// supervisor. Returns the guest's process.
    fn orphan(&self, lease: Duration, stage: Stage) -> Pid {
        let mut supervisor = self
            .supervisor()
            .env(LEASE_MS, lease.as_millis().to_string())
            .env(READY, stage.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(supervisor.stdout.take().unwrap()).lines().map(Result::unwrap);
        let process = lines.find_map(|line| line.split_once("guest ").map(|(_, pid)| pid.to_owned())).unwrap();
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
        Pid::from_raw(process.parse().unwrap()).unwrap()
    }

    /// Returns the command that runs [`a_supervisor_to_be_killed`]: one that takes the guest over.
    fn supervisor(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "succession::a_supervisor_to_be_killed", "--nocapture"])
            .env(AS_SUPERVISOR, self.0.path());
        command
    }

    /// Opens the run directory as the next supervisor.
    fn run_directory(&self) -> RunDirectory {
        run_directory(self.0.path())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("log")).unwrap()
    }
}

fn run_directory(directory: &Path) -> RunDirectory {
    RunDirectory::open(Some(&directory.join("run")), &FleetName::new("fleet").unwrap()).unwrap()
}

fn config(directory: &Path, run: &RunDirectory, lease: Duration) -> GuestConfig {
    let spec: GuestSpec = Fleet::load(&directory.join("fleet.toml")).unwrap().guests.remove(0);
    let files = Arc::new(run.guest(&spec.name).unwrap());
    GuestConfig {
        log: Some(directory.join("log")),
        succession: Some(Arc::new(Succession { files, spec: spec.clone(), lease })),
        ..spec.config(FrameCount::from_mib(64), program())
    }
}

/// The supervisor, in a process of its own; in the others, nothing.
#[test]
fn a_supervisor_to_be_killed() {
    let Some(directory) = std::env::var_os(AS_SUPERVISOR).map(PathBuf::from) else { return };
    if std::env::var(READY).is_err() {
        return move_targets(&run_directory(&directory));
    }
    let lease = Duration::from_millis(std::env::var(LEASE_MS).unwrap().parse().unwrap());
    let run = run_directory(&directory);
    let guest = VmmGuest::spawn(&config(&directory, &run, lease)).unwrap();
    let stage = std::env::var(READY).unwrap();
    let stage = [Stage::Negotiated, Stage::Marked].into_iter().find(|known| known.name() == stage).unwrap();
    // Events are left unread.
    while !stage.is_reached(&guest) {
        thread::yield_now();
    }
    println!("guest {}", guest.pid());
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn survivor(run: &RunDirectory) -> Survivor {
    let mut survivors = find_survivors(run).unwrap();
    assert_eq!(survivors.len(), 1, "{survivors:?}");
    survivors.remove(0)
}

fn adopt(run: &RunDirectory) -> Adopted {
    survivor(run).adopt(PATIENCE).unwrap()
}

/// Takes the guest over, and sets one target after the other until it is killed.
fn move_targets(run: &RunDirectory) {
    let Adopted { mut guest, epoch, .. } = adopt(run);
    let mut epoch = epoch;
    println!("taken over");
    for mib in (64..=128).step_by(2).cycle() {
        epoch = epoch.next();
        guest.send_target(FrameCount::from_mib(mib), epoch);
        assert_eq!(guest.next_event(), None);
        thread::sleep(Duration::from_micros(200));
    }
}

/// Returns how a guest ends that is not a child of this process.
fn end(guest: &mut VmmGuest) -> EndReason {
    loop {
        if let GuestEvent::Ended(ending) = next(guest) {
            return ending.reason;
        }
    }
}

fn wait_for_end(process: Pid) {
    let deadline = Instant::now() + PATIENCE;
    // Its new parent may take its time to reap it: a zombie is dead enough.
    let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "the guest's process does not end");
        thread::yield_now();
    }
}

#[test]
fn a_guest_outlives_its_supervisor_and_serves_the_next() {
    let bench = Bench::new(guests::listens());
    let process = bench.orphan(LONG, Stage::Marked);
    let run = bench.run_directory();
    let Adopted { mut guest, record, target, epoch, size } = adopt(&run);
    assert_eq!(u32::try_from(process.as_raw_nonzero().get()), Ok(guest.pid()));
    assert_eq!((target, epoch, size), (FrameCount::from_mib(64), Epoch(2), FrameCount::from_mib(64)));
    assert_eq!((record.spec.name.as_str(), record.memory), ("tiny", FrameCount::from_mib(128)));
    let page = guest.registers();
    assert_eq!((page.facts().size, page.facts().acknowledged), (size, epoch), "facts are there from the beginning");
    assert!(page.facts().port_calls > 0 && page.boot_ns(BootStage::Kernel) > guest.spawned_at_ns());
    assert!(guest.measure_resident().unwrap() > FrameCount::ZERO);
    assert_eq!(guest.next_event(), None);

    // The doorbell reaches the guest, which ends with success.
    guest.send_target(FrameCount::from_mib(66), epoch.next());
    assert_eq!(end(&mut guest), EndReason::Exited(GuestExit::Success));
    drop(guest);
    assert!(find_survivors(&run).unwrap().is_empty(), "its end was reported");
}

#[test]
fn a_guest_may_be_passed_on_again_and_again() {
    let bench = Bench::new(guests::spins());
    bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    for number in 2..20 {
        let Adopted { mut guest, epoch, .. } = adopt(&run);
        assert_eq!(epoch, Epoch(number));
        assert_eq!(guest.next_event(), None);
        guest.leave();
    }
    let mut guest = adopt(&run).guest;
    guest.request_stop();
    assert_eq!(end(&mut guest), EndReason::Stopped);
}

/// The target that a supervisor has published last stays in force. The guest takes what it allows,
/// nothing beyond, and grows further once the next supervisor says so.
#[test]
fn the_target_is_frozen_until_there_is_another_supervisor() {
    let bench = Bench::new(guests::grows());
    bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    let Adopted { mut guest, size, .. } = adopt(&run);
    assert_eq!(size, FrameCount::from_mib(64));
    let calls = guest.registers().facts().port_calls;
    until(&mut guest, |guest| guest.registers().facts().port_calls > calls + 10);
    assert_eq!(guest.registers().facts().size, FrameCount::from_mib(64));
    guest.set_target(FrameCount::from_mib(66));
    assert_eq!(end(&mut guest), EndReason::Exited(GuestExit::Success));
    assert_eq!(guest.registers().facts().size, FrameCount::from_mib(66));
}

/// Supervisors are killed at any moment: before, during and after the take-over, and while they set
/// targets. The guest verifies its memory meanwhile.
#[test]
fn a_guest_outlives_fifty_supervisors() {
    let bench = Bench::new(guests::verifies());
    let process = bench.orphan(LONG, Stage::Negotiated);
    // Multiples of a number that has no factor in common with 60, so that all moments have their
    // turn.
    for moment in (0..50).map(|round| round * 37 % 60) {
        let mut supervisor = bench.supervisor();
        supervisor.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut supervisor = supervisor.spawn().unwrap();
        if moment % 2 == 0 {
            let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line.contains("taken over")), "it ended by itself");
        }
        thread::sleep(Duration::from_millis(moment));
        supervisor.kill().unwrap();
        supervisor.wait().unwrap();
    }
    let run = bench.run_directory();
    let Adopted { mut guest, epoch, .. } = adopt(&run);
    assert_eq!(u32::try_from(process.as_raw_nonzero().get()), Ok(guest.pid()));
    assert!(epoch > Epoch(50), "{epoch:?}");
    let calls = guest.registers().facts().port_calls;
    until(&mut guest, |guest| guest.registers().facts().port_calls > calls);
    assert!(guest.measure_resident().unwrap() >= FrameCount::from_mib(16));
    guest.request_stop();
    assert_eq!(end(&mut guest), EndReason::Stopped);
}

#[test]
fn the_console_goes_on_without_a_supervisor() {
    let bench = Bench::new(guests::talks());
    bench.orphan(LONG, Stage::Marked);
    let run = bench.run_directory();
    let mut guest = adopt(&run).guest;
    until(&mut guest, |_| bench.log().len() == 10_000);
    assert_eq!(bench.log(), "ten bytes\n".repeat(1000));
}

#[test]
fn a_guest_that_is_not_taken_over_ends_with_its_lease() {
    let bench = Bench::new(guests::spins());
    let process = bench.orphan(Duration::from_millis(50), Stage::Negotiated);
    wait_for_end(process);
    let run = bench.run_directory();
    let error = survivor(&run).adopt(PATIENCE).unwrap_err();
    let expected = Ending { reason: EndReason::LeaseEnded, details: Vec::new() };
    assert!(matches!(&error, AdoptError::Gone(Some(ending)) if *ending == expected), "{error}");
}

#[test]
fn the_end_of_a_guest_is_known_to_the_next_supervisor() {
    let bench = Bench::new(guests::boots());
    let process = bench.orphan(LONG, Stage::Marked);
    wait_for_end(process);
    let error = survivor(&bench.run_directory()).adopt(PATIENCE).unwrap_err();
    assert!(matches!(&error, AdoptError::Gone(Some(ending)) if *ending == SUCCESS), "{error}");

    let bench = Bench::new(guests::spins());
    let process = bench.orphan(LONG, Stage::Negotiated);
    kill_process(process, Signal::KILL).unwrap();
    wait_for_end(process);
    let survivor = survivor(&bench.run_directory());
    survivor.files.remove();
    let error = survivor.adopt(PATIENCE).unwrap_err();
    assert!(matches!(error, AdoptError::Gone(None)), "{error}");
}

#[test]
fn an_adopted_guest_that_is_killed_is_noticed() {
    let bench = Bench::new(guests::spins());
    let process = bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    let mut guest = adopt(&run).guest;
    kill_process(process, Signal::KILL).unwrap();
    let reason = end(&mut guest);
    assert!(matches!(reason, EndReason::Failed(_)), "{reason:?}");
    drop(guest);

    let mut guest = VmmGuest::spawn(&config(bench.0.path(), &run, LONG)).unwrap();
    guest.kill();
    assert_eq!(end(&mut guest), EndReason::Killed(9));
}

#[test]
fn an_adopted_guest_ends_with_its_handle() {
    let bench = Bench::new(guests::spins());
    let process = bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    drop(adopt(&run).guest);
    wait_for_end(process);
    assert!(find_survivors(&run).unwrap().is_empty());
}

#[test]
fn one_of_two_supervisors_wins() {
    let bench = Bench::new(guests::spins());
    bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    for _ in 0..10 {
        let begin = Barrier::new(2);
        let adopt = || {
            let survivor = survivor(&run);
            begin.wait();
            survivor.adopt(Duration::from_millis(300))
        };
        let (first, second) = thread::scope(|scope| {
            let other = scope.spawn(adopt);
            (adopt(), other.join().unwrap())
        });
        let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
        assert!(matches!(loser, Err(AdoptError::Supervised)), "{loser:?}");
        winner.unwrap().guest.leave();
    }
    assert!(adopt(&run).guest.next_event().is_none());
}

#[test]
fn a_process_that_was_stopped_keeps_no_supervisor_waiting() {
    let bench = Bench::new(guests::spins());
    let process = bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    kill_process(process, Signal::STOP).unwrap();
    let error = survivor(&run).adopt(Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, AdoptError::Silent), "{error}");
    kill_process(process, Signal::CONT).unwrap();
    adopt(&run).guest.leave();

    kill_process(process, Signal::STOP).unwrap();
    assert!(survivor(&run).kill(), "it is ended all the same");
    wait_for_end(process);
}

#[test]
fn a_guest_that_still_runs_is_not_started_twice() {
    let bench = Bench::new(guests::spins());
    bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    let error = VmmGuest::spawn(&config(bench.0.path(), &run, LONG)).unwrap_err();
    assert!(matches!(error, SpawnError::StillRuns), "{error}");
    assert!(adopt(&run).guest.next_event().is_none(), "its files are still there");
}

#[test]
fn nonsense_on_the_listening_socket_costs_nothing() {
    let bench = Bench::new(guests::listens());
    bench.orphan(LONG, Stage::Marked);
    let run = bench.run_directory();
    let files = survivor(&run).files;
    let send = |bytes: &[u8]| {
        // Where the queue is full, the process is busy with the others.
        let Ok(socket) = files.connect() else { return };
        let _ = rustix::net::send(&socket, bytes, rustix::net::SendFlags::NOSIGNAL);
    };
    for round in 0..100_usize {
        send(&vec![b'{'; round * 1000 + 1]);
        send(br#"{"versions":{"oldest":1,"newest":1},"build":""}"#);
        send(b"\"Stop\"");
    }
    let mut guest = adopt(&run).guest;
    // The same while there is a supervisor.
    (0..20).for_each(|_| send(b"\"Stop\""));
    assert_eq!(guest.next_event(), None);
    guest.set_target(FrameCount::from_mib(66));
    assert_eq!(end(&mut guest), EndReason::Exited(GuestExit::Success));
}

/// A process of another build, or one that a guest has taken over.
#[test]
fn what_a_process_says_is_not_believed() {
    let bench = Bench::new(guests::spins());
    bench.orphan(LONG, Stage::Negotiated);
    let run = bench.run_directory();
    let Adopted { mut guest, record, .. } = adopt(&run);
    guest.request_stop();
    assert_eq!(end(&mut guest), EndReason::Stopped);
    drop(guest);

    let memory_frames = record.memory.0;
    let sound = Standing { memory_frames, target_frames: 1, epoch: 7, size_frames: 1 };
    let welcome = Verdict::Welcome(Versions::OURS.newest);
    let Versions { oldest, newest } = Versions::OURS;
    let other_version = format!("speaks versions {oldest} to {newest} of the protocol");
    let answers = [
        (Verdict::NoCommonVersion, sound, other_version.as_str()),
        (Verdict::Welcome(99), sound, "chose a version that it does not speak"),
        (welcome, Standing { epoch: u64::MAX, ..sound }, "says what its record contradicts"),
        (welcome, Standing { memory_frames: memory_frames + 1, ..sound }, "says what its record contradicts"),
        (welcome, sound, "does not answer"),
    ];
    for (verdict, standing, expected) in answers {
        let files = run.guest("tiny").unwrap();
        let listener = files.bind().unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        record.write(&files).unwrap();
        let impostor = thread::spawn(move || {
            let link = Link::new(rustix::net::accept(&listener).unwrap());
            drop(listener);
            let _: Hello = link.receive_plain(aerostat_link::Patience::Wait).unwrap();
            let answer = Answer { verdict, versions: Versions::OURS, build: "b\u{1b}".into() };
            link.send(&answer, &[], aerostat_link::Patience::Wait).unwrap();
            let _ = link.send(&FromVmm::Standing(standing), &[], aerostat_link::Patience::Wait);
            // Waits until the supervisor has gone.
            while !link.is_hung_up().unwrap() {
                thread::yield_now();
            }
        });
        let error = survivor(&run).adopt(Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        impostor.join().unwrap();
        files.remove();
    }
}
