//! The fleet manager with fake guests and a fake clock: commands, restarts, the admission queue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aerostat_abi::exit::GuestExit;
use aerostat_abi::registers::Epoch;
use aerostat_abi::requests::{Generation, Resources};
use aerostat_abi::units::FrameCount;

use super::fake::{FakeGuest, Machine, Manners};
use super::manager::{FleetManager, RunEnd};
use super::{
    Admission, Adoption, Answer, ApplyMode, Command, CommandError, EndMode, Found, GuestChange, GuestState,
    GuestStatus, Launched, PastGuest, Plan, SavedFleet, Supervisor, Version, Wanted,
};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec, RestartRule};
use crate::host::{EndReason, Ending};
use crate::scheduler::{IdleTax, Limits, Policy, Shares};

const TICK: Duration = Duration::from_millis(20);
const POOL: FrameCount = FrameCount::from_mib(512);
const STOP_PATIENCE: Duration = Duration::from_secs(2);

fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

fn spec(name: &str, min: u64, max: u64) -> GuestSpec {
    GuestSpec { limits: Limits { min: mib(min), max: mib(max) }, ..GuestSpec::for_tests(name) }
}

fn fleet(guests: Vec<GuestSpec>) -> Fleet {
    Fleet { pool: POOL, idle_tax: IdleTax::default(), guests }
}

/// A managed fleet of fakes, and time. Starts succeed at once unless the guest is in `broken`.
struct Bench {
    manager: FleetManager<FakeGuest>,
    machines: BTreeMap<String, Arc<Machine>>,
    broken: Vec<String>,
    manners: Manners,
    now: Moment,
}

impl Bench {
    fn new(guests: Vec<GuestSpec>) -> Self {
        let now = Moment::from_ns(1_000_000);
        let supervisor = Supervisor::new(POOL, Policy::default(), now);
        let manager = FleetManager::new(&fleet(guests), supervisor, STOP_PATIENCE, now);
        let mut bench =
            Self { manager, machines: BTreeMap::new(), broken: Vec::new(), manners: Manners::Obliging, now };
        let admissions = bench.manager.admit_all(now).unwrap();
        bench.start(admissions);
        bench
    }

    /// A fleet of which an earlier supervisor has left `running` guests, with targets and sizes,
    /// and the `ended` ones.
    fn resumed(guests: Vec<GuestSpec>, running: &[(&GuestSpec, u64, u64)], ended: &[(&GuestSpec, EndReason)]) -> Self {
        let now = Moment::from_ns(1_000_000);
        let supervisor = Supervisor::new(POOL, Policy::default(), now);
        let manager = FleetManager::new(&fleet(guests), supervisor, STOP_PATIENCE, now);
        let mut bench =
            Self { manager, machines: BTreeMap::new(), broken: Vec::new(), manners: Manners::Obliging, now };
        let mut found = Vec::new();
        for &(spec, target, size) in running {
            let (machine, handle) = Machine::boot(spec.limits.max, mib(size), Manners::Obliging);
            machine.hand_over(mib(target));
            bench.machines.insert(spec.name.clone(), machine);
            found.push(Found::Running(Box::new(Adoption {
                spec: spec.clone(),
                handle,
                spawned: now,
                machine: spec.limits.max,
                target: mib(target),
                epoch: Epoch(2),
                size: mib(size),
                told: Resources::new(Generation(7)),
                group: None,
            })));
        }
        found.extend(ended.iter().map(|(spec, reason)| {
            let ending = Ending { reason: reason.clone(), details: Vec::new() };
            Found::Ended(Box::new(PastGuest { spec: (*spec).clone(), ending }))
        }));
        bench.manager.resume(found, now);
        bench
    }

    fn start(&mut self, admissions: Vec<Admission>) {
        for admission in admissions {
            let GuestSpec { name, limits, .. } = admission.spec().clone();
            if self.broken.contains(&name) {
                self.manager.not_launched(admission, anyhow::anyhow!("no luck"), self.now);
                continue;
            }
            let (machine, handle) = Machine::boot(limits.max, admission.target(), self.manners);
            self.machines.insert(name, machine);
            self.manager.launched(admission, Launched { handle, spawned: self.now }, self.now);
        }
    }

    fn pass(&mut self, polls: usize) {
        for _ in 0..polls {
            self.now = self.now.after(TICK);
            self.machines.values().for_each(|machine| machine.step(self.now));
            self.manager.read_events(self.now);
            let admissions = self.manager.advance(self.now);
            self.start(admissions);
            self.manager.supervisor.poll(self.now);
        }
    }

    fn execute(&mut self, command: Command) -> Result<Answer, CommandError> {
        self.manager.execute(command, self.now)
    }

    fn needs(&self, name: &str, need: u64) {
        self.machines[name].need(mib(need));
    }

    fn guest(&self, name: &str) -> GuestStatus {
        let guests = self.manager.status(self.now).guests;
        guests.into_iter().find(|guest| guest.name == name).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.manager.status(self.now).guests.into_iter().map(|guest| guest.name).collect()
    }

    fn change(&mut self, name: &str, change: GuestChange) -> Result<Answer, CommandError> {
        self.execute(Command::Change { guest: name.into(), change, expected: None })
    }

    fn apply(&mut self, fleet: Fleet, mode: ApplyMode) -> Result<Plan, CommandError> {
        match self.execute(Command::Apply { fleet: Box::new(fleet), mode, expected: None })? {
            Answer::Plan(plan) => Ok(plan),
            answer => panic!("{answer:?}"),
        }
    }
}

fn stop(guest: &str) -> Command {
    Command::End { guest: guest.into(), how: EndMode::Stop }
}

fn start(guest: &str, patience: Duration) -> Command {
    Command::Start { guest: guest.into(), patience }
}

#[test]
fn guests_of_an_earlier_supervisor_are_taken_in() {
    let [alpha, beta, gamma, delta] = ["alpha", "beta", "gamma", "delta"].map(|name| spec(name, 64, 512));
    let always = GuestSpec { restart: RestartRule::Always, ..gamma };
    let success = EndReason::Exited(GuestExit::Success);
    // The file has one guest that is not there yet, and lacks one that is.
    let file = vec![alpha.clone(), beta.clone(), always.clone(), spec("new", 64, 512)];
    let mut bench = Bench::resumed(
        file,
        &[(&alpha, 128, 128), (&delta, 64, 64)],
        &[(&beta, EndReason::LeaseEnded), (&always, success)],
    );
    bench.needs("alpha", 120);
    bench.pass(20);
    let told: Vec<_> = bench.manager.supervisor.take_events().iter().map(|event| event.what.to_string()).collect();
    for expected in [
        "alpha was taken over with a target of 128.0 MiB and a size of 128.0 MiB",
        "delta was taken over with a target of 64.0 MiB and a size of 64.0 MiB",
        "beta ended: stopped when its lease ended: no supervisor took it over",
        "gamma ended: success",
        "gamma started with a target of 64.0 MiB",
        "new started with a target of 64.0 MiB",
    ] {
        assert!(told.iter().any(|event| event == expected), "{expected}: {told:#?}");
    }
    let states = ["alpha", "beta", "gamma", "delta", "new"].map(|name| bench.guest(name).state);
    use GuestState::{Ended, Running};
    assert_eq!(states, [Running, Ended, Running, Running, Running]);
    assert!(bench.guest("alpha").target >= mib(120), "{:?}", bench.guest("alpha"));
    assert!(bench.machines["alpha"].resources().generation > Generation(7), "generations go on");
    assert_eq!(bench.manager.status(bench.now).violations, 0);
}

#[test]
fn a_pool_that_survivors_overcommit_comes_back_under_and_starts_the_others_then() {
    let [alpha, beta] = ["alpha", "beta"].map(|name| spec(name, 64, 512));
    let file = vec![alpha.clone(), beta.clone(), spec("new", 64, 512)];
    // One was still shrinking when its supervisor was killed.
    let mut bench = Bench::resumed(file, &[(&alpha, 400, 400), (&beta, 100, 400)], &[]);
    bench.needs("alpha", 300);
    bench.needs("beta", 100);
    assert_eq!(bench.manager.status(bench.now).free, FrameCount::ZERO);
    bench.pass(400);
    let guests = ["alpha", "beta", "new"].map(|name| bench.guest(name));
    assert!(guests.iter().all(|guest| guest.state != GuestState::Queued), "{guests:#?}");
    let sizes = guests.iter().map(|guest| guest.size).fold(FrameCount::ZERO, FrameCount::saturating_add);
    assert!(sizes <= POOL, "{sizes}");
    assert_eq!(bench.manager.status(bench.now).violations, 0);
}

#[test]
fn a_guest_is_stopped_started_and_restarted_by_its_name() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 64, 512)]);
    bench.pass(5);
    assert_eq!(bench.execute(stop("alpha")), Ok(Answer::Done(Version(1))));
    bench.pass(2);
    assert_eq!(bench.guest("alpha").state, GuestState::Ended);
    assert_eq!(bench.guest("alpha").ending.as_deref(), Some("stopped"));
    assert!(matches!(bench.execute(stop("alpha")), Err(CommandError::WrongState { .. })));

    assert_eq!(bench.execute(start("alpha", Duration::ZERO)), Ok(Answer::Starting(2)));
    bench.pass(2);
    let alpha = bench.guest("alpha");
    assert_eq!((alpha.state, alpha.service.starts, alpha.ending), (GuestState::Running, 2, None));
    assert_eq!(bench.names(), ["alpha", "beta"], "the order is the fleet's");
    assert!(matches!(bench.execute(start("alpha", Duration::ZERO)), Err(CommandError::WrongState { .. })));

    assert_eq!(bench.execute(Command::Restart { guest: "beta".into() }), Ok(Answer::Starting(2)));
    bench.pass(3);
    assert_eq!((bench.guest("beta").state, bench.guest("beta").service.starts), (GuestState::Running, 2));
    assert_eq!(bench.execute(stop("gamma")), Err(CommandError::NoSuchGuest("gamma".into())));
    assert!(!bench.manager.is_over());
    assert_eq!(bench.manager.into_outcome(bench.now).violations, 0);
}

#[test]
fn a_guest_that_does_not_stop_is_killed() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512)]);
    bench.manners = Manners::Stubborn;
    bench.execute(Command::Restart { guest: "alpha".into() }).unwrap();
    bench.pass(3);
    bench.execute(stop("alpha")).unwrap();
    bench.pass(90);
    assert_eq!(bench.guest("alpha").state, GuestState::Stopping);
    bench.pass(20);
    assert_eq!(bench.guest("alpha").state, GuestState::Ended);
    assert!(bench.manager.is_over());
}

#[test]
fn a_guest_that_fails_is_started_again_as_its_rule_says() {
    let with = |restart| GuestSpec { restart, ..spec("alpha", 64, 512) };
    for (restart, reason, starts) in [
        (RestartRule::Never, EndReason::Killed(9), 1),
        (RestartRule::OnFailure, EndReason::Killed(9), 2),
        (RestartRule::OnFailure, EndReason::Exited(GuestExit::Success), 1),
        (RestartRule::Always, EndReason::Exited(GuestExit::Success), 2),
    ] {
        let mut bench = Bench::new(vec![with(restart)]);
        bench.pass(2);
        bench.machines["alpha"].end(reason);
        bench.pass(2);
        let expected = if starts == 2 { GuestState::BackingOff } else { GuestState::Ended };
        assert_eq!(bench.guest("alpha").state, expected);
        bench.pass(6);
        assert_eq!((bench.guest("alpha").service.starts, bench.manager.is_over()), (starts, starts == 1));
    }
}

#[test]
fn a_failed_start_is_an_event_and_a_reason_to_try_again() {
    let mut bench = Bench::new(vec![GuestSpec { restart: RestartRule::Always, ..spec("alpha", 64, 512) }]);
    bench.broken.push("alpha".into());
    bench.machines["alpha"].end(EndReason::Exited(GuestExit::Success));
    bench.pass(30);
    let told: Vec<String> = bench.manager.supervisor.take_events().iter().map(|event| event.what.to_string()).collect();
    assert!(told.contains(&"alpha can't be started: no luck".to_owned()), "{told:?}");
    bench.broken.clear();
    bench.pass(100);
    assert_eq!(bench.guest("alpha").state, GuestState::Running);
}

/// The pool is full, and the guest that fills it shrinks for the one that waits.
#[test]
fn a_guest_waits_for_its_minimum_and_others_shrink_for_it() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 128, 512)]);
    bench.execute(stop("beta")).unwrap();
    bench.needs("alpha", 500);
    bench.pass(60);
    assert!(bench.guest("alpha").size > mib(400));
    let refused = bench.execute(start("beta", Duration::ZERO)).unwrap_err().to_string();
    assert!(refused.contains("is not started: the guest's minimum is 128.0 MiB"), "{refused}");
    assert_eq!(bench.guest("beta").service.starts, 1, "nothing was changed");

    // It would keep what it does not need for a while.
    bench.needs("alpha", 100);
    bench.execute(start("beta", Duration::from_secs(30))).unwrap();
    bench.pass(1);
    assert_eq!(bench.guest("beta").state, GuestState::Queued);
    bench.pass(60);
    assert_eq!(bench.guest("beta").state, GuestState::Running);
    assert_eq!(bench.manager.into_outcome(bench.now).violations, 0);
}

/// The guest that holds the memory needs all of it and can't shrink.
#[test]
fn a_wait_for_memory_ends_with_its_deadline() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 128, 512)]);
    bench.execute(stop("beta")).unwrap();
    bench.needs("alpha", 500);
    bench.pass(60);
    bench.execute(start("beta", Duration::from_secs(1))).unwrap();
    bench.pass(60);
    assert_eq!(bench.guest("beta").state, GuestState::Ended);
    let told: Vec<String> = bench.manager.supervisor.take_events().iter().map(|event| event.what.to_string()).collect();
    assert!(told.iter().any(|line| line.starts_with("beta is not started: ")), "{told:?}");
}

#[test]
fn settings_change_together_or_not_at_all() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 64, 512)]);
    bench.pass(2);
    let before = bench.guest("alpha");
    for (change, expected) in [
        (GuestChange { min: Some(mib(600)), ..GuestChange::default() }, "min 600M is above max 512M"),
        (GuestChange { max: Some(mib(1024)), ..GuestChange::default() }, "is above the 512.0 MiB of the machine"),
        (
            GuestChange { min: Some(mib(500)), shares: Some(Shares::HIGH), ..GuestChange::default() },
            "would add up to 564.0 MiB, and the pool has 512.0 MiB",
        ),
        (GuestChange { reservation: Some(mib(600)), ..GuestChange::default() }, "is above max"),
        (GuestChange { min: Some(FrameCount::ZERO), ..GuestChange::default() }, "is too little for a kernel"),
    ] {
        let error = bench.change("alpha", change).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with("guest \"alpha\""), "{error}");
        let after = bench.guest("alpha");
        assert_eq!(
            (after.limits, after.subscription, after.service),
            (before.limits, before.subscription, before.service.clone())
        );
    }
    let change = GuestChange { max: Some(mib(128)), shares: Some(Shares::HIGH), ..GuestChange::default() };
    assert_eq!(bench.change("alpha", change), Ok(Answer::Done(Version(2))));
    bench.needs("alpha", 400);
    bench.pass(50);
    let alpha = bench.guest("alpha");
    assert_eq!((alpha.size, alpha.limits.max, alpha.subscription.shares), (mib(128), mib(128), Shares::HIGH));
    let told = bench.manager.supervisor.take_events();
    assert!(
        told.iter().any(|event| event.what.to_string() == "alpha: max 512.0 MiB -> 128.0 MiB, shares 1000 -> 2000")
    );
}

#[test]
fn a_change_of_an_older_version_is_refused() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512)]);
    let change = GuestChange { shares: Some(Shares::LOW), ..GuestChange::default() };
    let with = |expected| Command::Change { guest: "alpha".into(), change, expected };
    assert_eq!(bench.execute(with(Some(Version(1)))), Ok(Answer::Done(Version(2))));
    let conflict = CommandError::Conflict { expected: Version(1), current: Version(2) };
    assert_eq!(bench.execute(with(Some(Version(1)))), Err(conflict.clone()));
    assert!(conflict.to_string().starts_with("version 1 was expected and the version is 2"));
}

#[test]
fn the_pool_shrinks_and_grows_under_running_guests() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 64, 512)]);
    bench.needs("alpha", 300);
    bench.needs("beta", 300);
    bench.pass(60);
    let sizes = |bench: &Bench| bench.guest("alpha").size.saturating_add(bench.guest("beta").size);
    assert!(sizes(&bench) > mib(450));
    let resize = |pool| Command::Pool { pool: mib(pool), expected: None };
    assert!(bench.execute(resize(100)).unwrap_err().to_string().contains("would add up to 128.0 MiB"));
    assert!(bench.execute(resize(0)).is_err());
    // It would keep what it does not need for a while.
    ["alpha", "beta"].iter().for_each(|name| bench.needs(name, 100));
    assert_eq!(bench.execute(resize(256)), Ok(Answer::Done(Version(2))));
    bench.pass(60);
    assert!(sizes(&bench) <= mib(256));
    ["alpha", "beta"].iter().for_each(|name| bench.needs(name, 300));
    bench.execute(resize(512)).unwrap();
    bench.pass(60);
    assert!(sizes(&bench) > mib(450));
    assert_eq!(bench.manager.into_outcome(bench.now).violations, 0, "what falls is no violation");
}

#[test]
fn a_users_target_overrules_the_scheduler_until_it_is_left_to_it() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512)]);
    bench.needs("alpha", 100);
    bench.pass(30);
    let target = |target| Command::Target { guest: "alpha".into(), target };
    assert!(bench.execute(target(Some(mib(600)))).unwrap_err().to_string().contains("not from min 64.0 MiB to max"));
    bench.execute(target(Some(mib(300)))).unwrap();
    bench.pass(60);
    let alpha = bench.guest("alpha");
    assert_eq!((alpha.size, alpha.target, alpha.service.pinned), (mib(300), mib(300), Some(mib(300))));
    bench.execute(target(None)).unwrap();
    bench.pass(300);
    assert!(bench.guest("alpha").size < mib(200));
}

#[test]
fn a_fleet_is_changed_to_match_an_edited_file() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 256), spec("beta", 64, 256), spec("gamma", 64, 256)]);
    bench.pass(5);
    let edited = Fleet {
        pool: mib(400),
        ..fleet(vec![
            spec("delta", 100, 256),
            GuestSpec { command_line: "anew".into(), ..spec("gamma", 200, 256) },
            spec("beta", 100, 128),
        ])
    };
    let plan = bench.apply(edited.clone(), ApplyMode::DryRun).unwrap();
    assert_eq!(plan.steps.len(), 5, "{plan:?}");
    assert_eq!(bench.names(), ["alpha", "beta", "gamma"]);
    assert_eq!(bench.apply(edited.clone(), ApplyMode::CarryOut).unwrap(), plan);
    bench.pass(60);
    assert_eq!(bench.names(), ["delta", "gamma", "beta"]);
    for (name, min, starts) in [("delta", 100, 1), ("gamma", 200, 2), ("beta", 100, 1)] {
        let guest = bench.guest(name);
        assert_eq!((guest.state, guest.limits.min, guest.service.starts), (GuestState::Running, mib(min), starts));
    }
    let status = bench.manager.status(bench.now);
    assert_eq!((status.pool, status.version), (mib(400), Version(2)));
    assert!(bench.apply(edited, ApplyMode::CarryOut).unwrap().is_empty());
    assert_eq!(bench.manager.into_outcome(bench.now).violations, 0);
}

#[test]
fn what_users_have_changed_is_saved_and_restored() {
    let guests = vec![spec("alpha", 64, 512), spec("beta", 64, 512), spec("gamma", 64, 512)];
    let mut bench = Bench::new(guests.clone());
    bench.pass(2);
    assert!(bench.manager.take_change().is_some_and(|saved| saved.fleet() == fleet(guests.clone())));
    bench.pass(2);
    assert_eq!(bench.manager.take_change(), None, "nothing was changed");
    bench.change("alpha", GuestChange { shares: Some(Shares::HIGH), ..GuestChange::default() }).unwrap();
    bench.execute(Command::Target { guest: "alpha".into(), target: Some(mib(128)) }).unwrap();
    bench.execute(Command::Pool { pool: mib(400), expected: None }).unwrap();
    bench.execute(stop("beta")).unwrap();
    let saved = bench.manager.take_change().unwrap();
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<SavedFleet>(&text).unwrap(), saved);
    assert_eq!((saved.pool, saved.version), (mib(400), 2));
    let wanted = ["alpha", "beta", "gamma"].map(|name| saved.guest(name).unwrap().wanted);
    assert_eq!(wanted, [Wanted::Up, Wanted::Down, Wanted::Up]);

    let mut next = Bench::new(saved.fleet().guests);
    next.manager.restore(&saved);
    let alpha = next.guest("alpha");
    assert_eq!((alpha.service.version, alpha.service.pinned), (Version(3), Some(mib(128))));
    assert_eq!(alpha.subscription.shares, Shares::HIGH);
}

#[test]
fn a_shutdown_starts_nothing_more() {
    let mut bench = Bench::new(vec![GuestSpec { restart: RestartRule::Always, ..spec("alpha", 64, 512) }]);
    bench.execute(Command::Shutdown).unwrap();
    assert_eq!(bench.manager.run_end(), Some(RunEnd::Shutdown));
    bench.machines["alpha"].end(EndReason::Killed(9));
    bench.pass(100);
    assert_eq!(bench.guest("alpha").service.starts, 1);
}

#[test]
fn guests_are_handed_over_unless_one_is_starting_or_none_runs() {
    let mut bench = Bench::new(vec![spec("alpha", 64, 512), spec("beta", 64, 512)]);
    bench.manners = Manners::Stubborn;
    bench.execute(Command::End { guest: "beta".into(), how: EndMode::Stop }).unwrap();
    bench.pass(2);
    bench.execute(Command::Start { guest: "beta".into(), patience: Duration::ZERO }).unwrap();
    let admissions = bench.manager.advance(bench.now);
    let refusal = bench.execute(Command::HandOver).unwrap_err().to_string();
    assert_eq!(refusal, "guest \"beta\" is starting; repeat the command when it runs");
    assert_eq!(bench.manager.run_end(), None);
    bench.start(admissions);
    bench.execute(Command::HandOver).unwrap();
    assert_eq!(bench.manager.run_end(), Some(RunEnd::HandOver));
    bench.manager.supervisor.leave(bench.now);
    assert!(bench.machines.values().all(|machine| machine.is_left.get()));

    let mut ended = Bench::new(vec![spec("alpha", 64, 512)]);
    ended.machines["alpha"].end(EndReason::Exited(GuestExit::Success));
    ended.pass(2);
    let refusal = ended.execute(Command::HandOver).unwrap_err().to_string();
    assert_eq!(refusal, "no guest runs that could be left; end the fleet instead");
}
