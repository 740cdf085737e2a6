//! The loop around the supervisor, with fake guests, real threads and the real clock.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::process::{Signal, getpid, kill_process};

use super::fake::{FakeGuest, Machine, Manners};
use super::{Command, Event, EventKind, FleetStatus, Observer, Outcome, RunError, RunOptions, STARTERS, mailbox};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec};
use crate::host::EndReason;
use crate::scheduler::{IdleTax, Limits};

const POOL: FrameCount = FrameCount::from_mib(512);
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

fn spec(name: &str, min_mib: u64, max_mib: u64) -> GuestSpec {
    let limits = Limits { min: FrameCount::from_mib(min_mib), max: FrameCount::from_mib(max_mib) };
    GuestSpec { limits, ..GuestSpec::for_tests(name) }
}

fn fleet(guests: Vec<GuestSpec>) -> Fleet {
    Fleet { pool: POOL, idle_tax: IdleTax::default(), guests }
}

fn two_guests() -> Fleet {
    fleet(vec![spec("alpha", 64, 512), spec("beta", 64, 512)])
}

fn boot(spec: &GuestSpec, target: FrameCount, manners: Manners) -> (Arc<Machine>, FakeGuest) {
    Machine::boot(spec.limits.max, target, manners)
}

/// Held by each run: a signal goes to the whole process, and so to every run in it.
static RUN: Mutex<()> = Mutex::new(());

fn run(
    fleet: &Fleet,
    options: RunOptions,
    start: impl Fn(&GuestSpec, FrameCount) -> anyhow::Result<FakeGuest> + Send + Sync + 'static,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let _one_at_a_time = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    super::run(fleet, options, start, observer)
}

/// Keeps the events, target changes excepted, and passes each on to a closure.
struct Notes<F> {
    notes: Vec<String>,
    on_event: F,
}

impl<F: FnMut(&EventKind)> Notes<F> {
    fn new(on_event: F) -> Self {
        Self { notes: Vec::new(), on_event }
    }
}

impl<F: FnMut(&EventKind)> Observer for Notes<F> {
    fn on_event(&mut self, event: &Event) {
        if !matches!(event.what, EventKind::Target { .. }) {
            self.notes.push(event.what.to_string());
        }
        (self.on_event)(&event.what);
    }

    fn on_poll(&mut self, _: &FleetStatus) {}
}

/// A start that waits until the test lets it go on.
struct Gate(Mutex<Receiver<()>>);

impl Gate {
    fn new() -> (Sender<()>, Self) {
        let (opener, gate) = channel();
        (opener, Self(Mutex::new(gate)))
    }

    /// Waits until the gate is opened; returns whether it was, in time.
    fn pass(&self) -> bool {
        self.0.lock().unwrap().recv_timeout(PATIENCE).is_ok()
    }
}

/// Runs two fakes with these manners for 50 ms.
fn run_fakes(manners: [Manners; 2]) -> (Outcome, Vec<String>) {
    let options = RunOptions {
        limit: Some(Duration::from_millis(50)),
        stop_patience: Duration::from_millis(200),
        ..RunOptions::default()
    };
    let mut notes = Notes::new(|_| ());
    let start = move |spec: &GuestSpec, target| {
        let manners = if spec.name == "alpha" { manners[0] } else { manners[1] };
        Ok(boot(spec, target, manners).1)
    };
    let outcome = run(&two_guests(), options, start, &mut notes).unwrap();
    (outcome, notes.notes)
}

#[test]
fn guests_that_run_at_the_end_are_stopped() {
    let (outcome, notes) = run_fakes([Manners::Obliging; 2]);
    assert!(outcome.is_success());
    assert!(outcome.elapsed >= Duration::from_millis(50) && outcome.elapsed < Duration::from_secs(1));
    let (mut starts, ends) = (notes[..2].to_vec(), &notes[2..]);
    starts.sort();
    assert_eq!(starts, ["alpha started with a target of 64.0 MiB", "beta started with a target of 64.0 MiB"]);
    assert_eq!(ends, ["alpha ended: stopped", "beta ended: stopped"]);
}

/// A client asks for a hand-over once both guests run: neither is asked to end.
#[test]
fn a_run_that_is_handed_over_leaves_its_guests() {
    let (mailbox, inbox) = mailbox().unwrap();
    let (machines, left) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
    let start = {
        let machines = Arc::clone(&machines);
        move |spec: &GuestSpec, target| {
            let (machine, handle) = boot(spec, target, Manners::Obliging);
            machines.lock().unwrap().push(machine);
            Ok(handle)
        }
    };
    let mut started = 0;
    let mut notes = Notes::new(|what: &EventKind| {
        started += usize::from(matches!(what, EventKind::Started { .. }));
        if started == 2 && matches!(what, EventKind::Started { .. }) {
            let left = Arc::clone(&left);
            mailbox.send(Command::HandOver, Box::new(move |answer| *left.lock().unwrap() = Some(answer))).unwrap();
        }
    });
    let options = RunOptions { inbox: Some(inbox), ..RunOptions::default() };
    let outcome = run(&two_guests(), options, start, &mut notes).unwrap();
    assert!(outcome.is_success() && left.lock().unwrap().as_ref().is_some_and(Result::is_ok));
    assert!(machines.lock().unwrap().iter().all(|machine| machine.is_left.get()));
    let target = "runs on with a target of 64.0 MiB, for the next supervisor";
    assert_eq!(notes.notes[2..], [format!("alpha {target}"), format!("beta {target}")]);
    assert_eq!(outcome.guests[0].ending.reason.to_string(), "runs on, for the next supervisor");
}

#[test]
fn guests_that_do_not_stop_are_killed_and_then_given_up() {
    let (outcome, _) = run_fakes([Manners::Stubborn, Manners::Immortal]);
    let reasons: Vec<String> = outcome.guests.iter().map(|guest| guest.ending.reason.to_string()).collect();
    assert_eq!(reasons, ["process killed by signal 9", "failed: its process can't be ended"]);
    assert!(outcome.elapsed < Duration::from_secs(5));
}

/// Many starts take their time; a guest that runs and needs memory gets it meanwhile, but never the
/// minimum of one that is still to come.
#[test]
fn guests_are_served_while_others_start() {
    const OTHERS: usize = 100;
    let mut guests = vec![spec("alpha", 64, 512)];
    guests.extend((0..OTHERS).map(|number| spec(&format!("other{number}"), 2, 2)));
    let machines = Arc::new(Mutex::new(Vec::<Arc<Machine>>::new()));
    let most = Arc::new(Mutex::new(FrameCount::ZERO));
    let start = {
        let (machines, most) = (Arc::clone(&machines), Arc::clone(&most));
        move |spec: &GuestSpec, target| {
            let (machine, handle) = boot(spec, target, Manners::Obliging);
            machine.need(if spec.name == "alpha" { FrameCount::from_mib(500) } else { FrameCount::ZERO });
            std::thread::sleep(Duration::from_millis(4));
            let mut machines = machines.lock().unwrap();
            machines.push(machine);
            machines.iter().for_each(|machine| machine.step(Moment::now()));
            let mut most = most.lock().unwrap();
            *most = machines.iter().map(|machine| machine.target()).max().unwrap().max(*most);
            Ok(handle)
        }
    };
    // When the last guest has started, all are told to end.
    let mut started = 0;
    let mut notes = Notes::new(|what: &EventKind| {
        started += usize::from(matches!(what, EventKind::Started { .. }));
        if started == OTHERS + 1 && matches!(what, EventKind::Started { .. }) {
            machines.lock().unwrap().iter().for_each(|machine| machine.end(EndReason::Killed(15)));
        }
    });
    let outcome = run(&fleet(guests), RunOptions::default(), start, &mut notes).unwrap();
    assert_eq!((outcome.guests.len(), outcome.violations), (OTHERS + 1, 0));
    assert_eq!(outcome.guests[0].name, "alpha", "guests are in the order of the fleet file");
    assert_eq!(outcome.guests[OTHERS].name, format!("other{}", OTHERS - 1));
    let left = POOL.saturating_sub(FrameCount::from_mib(2 * OTHERS as u64));
    assert_eq!(*most.lock().unwrap(), left, "alpha has all but the minima of the others");
}

/// The first start waits until all others have started and one of them has been granted memory.
#[test]
fn a_start_that_blocks_delays_neither_other_starts_nor_guests_that_run() {
    const OTHERS: usize = 2 * STARTERS;
    let mut guests = vec![spec("slow", 2, 2)];
    guests.extend((0..OTHERS).map(|number| spec(&format!("quick{number}"), 16, 256)));
    let (opener, gate) = Gate::new();
    let was_opened = Arc::new(Mutex::new(None));
    let start = {
        let was_opened = Arc::clone(&was_opened);
        move |spec: &GuestSpec, target| {
            if spec.name == "slow" {
                *was_opened.lock().unwrap() = Some(gate.pass());
            }
            let (machine, handle) = boot(spec, target, Manners::Obliging);
            machine.need(FrameCount::from_mib(if spec.name == "quick0" { 100 } else { 1 }));
            machine.step(Moment::now());
            Ok(handle)
        }
    };
    let (mut started, mut grown) = (0, false);
    let mut notes = Notes::new(|what: &EventKind| {
        match what {
            EventKind::Started { guest, .. } if guest == "slow" => kill_process(getpid(), Signal::TERM).unwrap(),
            EventKind::Started { .. } => started += 1,
            EventKind::Target { guest, to, .. } => grown |= guest == "quick0" && *to > FrameCount::from_mib(16),
            _ => {}
        }
        if started == OTHERS && grown {
            // The receiver is gone once it has passed.
            let _ = opener.send(());
        }
    });
    let outcome = run(&fleet(guests), RunOptions::default(), start, &mut notes).unwrap();
    assert_eq!(*was_opened.lock().unwrap(), Some(true), "the others waited for the slow start");
    assert_eq!((outcome.guests.len(), outcome.violations), (OTHERS + 1, 0));
}

/// A start hangs, and a signal comes: the guest that runs is stopped, and the other never begins.
#[test]
fn a_signal_ends_a_run_in_the_middle_of_its_starts() {
    let (opener, gate) = Gate::new();
    let start = move |spec: &GuestSpec, target| {
        if spec.name == "beta" {
            gate.pass();
        }
        Ok(boot(spec, target, Manners::Obliging).1)
    };
    let mut notes = Notes::new(|what: &EventKind| {
        if matches!(what, EventKind::Started { .. }) {
            kill_process(getpid(), Signal::TERM).unwrap();
        }
    });
    let outcome = run(&two_guests(), RunOptions::default(), start, &mut notes).unwrap();
    assert_eq!(notes.notes, ["alpha started with a target of 64.0 MiB", "alpha ended: stopped"]);
    assert_eq!(outcome.guests.len(), 1);
    assert!(outcome.elapsed < PATIENCE, "the end did not wait for the start");
    drop(opener);
}

/// A guest whose start was abandoned while it ran is ended where it comes to life.
#[test]
fn a_guest_that_starts_too_late_is_dropped() {
    struct Handle(Sender<()>);
    impl Drop for Handle {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (opener, gate) = Gate::new();
    let (dropped, drops) = channel();
    let (entered, entries) = channel();
    let mut starters = super::starters::Starters::new(move |_: &GuestSpec, _| {
        entered.send(()).unwrap();
        gate.pass();
        Ok(Handle(dropped.clone()))
    })
    .unwrap();
    let mut supervisor = super::Supervisor::<FakeGuest>::new(POOL, crate::scheduler::Policy::default(), Moment::now());
    starters.start(supervisor.admit(&spec("late", 64, 64)).unwrap());
    entries.recv_timeout(PATIENCE).expect("the start begins");
    starters.abandon();
    opener.send(()).unwrap();
    drops.recv_timeout(PATIENCE).expect("the handle is dropped");
    assert!(starters.take_result().is_none());
    starters.close(PATIENCE);
}

#[test]
fn the_time_of_a_run_includes_its_starts() {
    let (opener, gate) = Gate::new();
    let start = move |spec: &GuestSpec, target| {
        gate.pass();
        Ok(boot(spec, target, Manners::Obliging).1)
    };
    let options = RunOptions { limit: Some(Duration::from_millis(50)), ..RunOptions::default() };
    let outcome = run(&two_guests(), options, start, &mut Notes::new(|_| ())).unwrap();
    assert!(outcome.guests.is_empty() && outcome.elapsed < PATIENCE);
    drop(opener);
}

#[test]
fn a_guest_that_can_not_start_ends_the_others() {
    let (opener, gate) = Gate::new();
    let start = move |spec: &GuestSpec, target| match spec.name.as_str() {
        "alpha" => Ok(boot(spec, target, Manners::Obliging).1),
        _ => {
            gate.pass();
            Err(anyhow::anyhow!("no luck"))
        }
    };
    let mut notes = Notes::new(|what: &EventKind| {
        if matches!(what, EventKind::Started { .. }) {
            opener.send(()).unwrap();
        }
    });
    let error = run(&two_guests(), RunOptions::default(), start, &mut notes).unwrap_err();
    assert!(matches!(error, RunError::Start(_)));
    assert_eq!(error.to_string(), "guest \"beta\" can't be started: no luck");
    assert_eq!(notes.notes.last().unwrap(), "alpha ended: stopped");
}

#[test]
fn a_start_that_panics_fails_and_the_others_are_ended() {
    let start = |spec: &GuestSpec, target| {
        assert_ne!(spec.name, "beta", "a test of panics");
        Ok(boot(spec, target, Manners::Obliging).1)
    };
    let error = run(&two_guests(), RunOptions::default(), start, &mut Notes::new(|_| ())).unwrap_err();
    assert_eq!(error.to_string(), "guest \"beta\" can't be started: its start panicked");
}
