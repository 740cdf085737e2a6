use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::explain;
use crate::control::api::Explanation;
use crate::scheduler::{Cause, GuestId, InNeed, Inputs, PoolState, Reason, Rung, Shares, StateCause, Subscription};
use crate::supervisor::{DecisionStatus, EnforcementStatus, FleetStatus, GuestState, GuestStatus};

const fn mib(count: u64) -> FrameCount {
    FrameCount::from_mib(count)
}

/// A decision to change a target, of a guest that uses what it is entitled to.
fn decision(from: u64, to: u64, reason: Reason) -> DecisionStatus {
    let inputs = Inputs {
        firm: mib(to),
        returning: FrameCount::ZERO,
        demand: mib(to),
        idle_percent: 0,
        entitlement: mib(to),
        free: FrameCount::ZERO,
        pool: PoolState::High,
        pool_cause: StateCause::Pool,
        in_need: None,
    };
    DecisionStatus { from: mib(from), to: mib(to), reason, inputs, in_need: None }
}

/// A guest that runs and has what it needs.
fn guest(name: &str, target: u64) -> GuestStatus {
    let target_size = mib(target);
    let mut guest = GuestStatus {
        state: GuestState::Running,
        machine: mib(512),
        size: target_size,
        target: target_size,
        resident: target_size,
        decision: Some(decision(target, target, Reason::Fits)),
        ..GuestStatus::for_tests(name, mib(512))
    };
    guest.limits.min = mib(32);
    guest
}

/// A guest that would like `demand` and is kept at `target` by the needs of others.
fn short(name: &str, target: u64, demand: u64) -> GuestStatus {
    let mut decision = decision(target, target, Reason::AtFairShare);
    decision.inputs.demand = mib(demand);
    GuestStatus { decision: Some(decision), ..guest(name, target) }
}

fn fleet(guests: Vec<GuestStatus>) -> FleetStatus {
    FleetStatus { free: mib(4), guests, ..FleetStatus::for_tests(mib(512)) }
}

fn explained(guests: Vec<GuestStatus>) -> Explanation {
    let name = guests[0].name.clone();
    explain(&fleet(guests), &name, &|at| format!("12:00:{:02}", at.as_secs())).unwrap()
}

/// Returns the line that contains a text.
fn find<'a>(lines: &'a [String], text: &str) -> &'a str {
    lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text:?} is not in {lines:#?}"))
}

#[test]
fn a_guest_that_is_not_in_the_fleet_has_no_explanation() {
    assert!(explain(&fleet(vec![guest("db", 64)]), "web", &|_| String::new()).is_none());
}

#[test]
fn a_shrunk_guest_reads_for_whom_and_what_it_keeps() {
    let mut change = decision(128, 96, Reason::NeededElsewhere);
    change.inputs.idle_percent = 61;
    change.in_need = Some("web".into());
    change.inputs.in_need = Some(InNeed { guest: GuestId(1), missing: mib(48) });
    let mut db = guest("db", 96);
    db.subscription.reservation = mib(64);
    db.last_change = Some((Duration::from_secs(3), change));
    // What web does later is not why.
    let mut web = guest("web", 400);
    web.last_change = Some((Duration::from_secs(9), decision(176, 400, Reason::Pressure)));
    let explanation = explained(vec![db, web]);
    assert_eq!(
        explanation.summary,
        "shrunk by 32 MiB at 12:00:03: web asked for 48 MiB; this guest is 61 % idle, tax 75 %; it keeps 96 MiB, \
         64 MiB of it reserved"
    );
    assert!(explanation.remedies.is_empty(), "it lacks nothing");
}

#[test]
fn every_other_reason_to_shrink_has_its_own_words() {
    for (reason, words) in [
        (Reason::Idle, "it has needed less for a while; this guest is 0 % idle; it keeps 96 MiB, 32 MiB"),
        (Reason::PoolShort, "little of the pool is free"),
        (Reason::LimitsChanged, "its limits were changed"),
        (Reason::Pinned, "a user fixed it"),
        (
            Reason::IdleTaxed,
            "its idle memory is taxed in a pool that is all in demand; this guest is 0 % idle, tax 75 %",
        ),
        (Reason::FairShare, "above its fair share of a pool that is all in demand; this guest is 0 % idle, tax 75 %"),
    ] {
        let last_change = Some((Duration::from_secs(1), decision(128, 96, reason)));
        let summary = explained(vec![GuestStatus { last_change, ..guest("db", 96) }]).summary;
        assert!(summary.starts_with("shrunk by 32 MiB at 12:00:01: ") && summary.contains(words), "{summary}");
    }
}

#[test]
fn a_guest_that_has_grown_or_kept_its_target_reads_why() {
    let last_change = Some((Duration::from_secs(5), decision(96, 144, Reason::Demand)));
    let grown = explained(vec![GuestStatus { last_change, ..guest("db", 144) }]).summary;
    assert_eq!(grown, "grown by 48 MiB at 12:00:05: it needs more; it may have 144 MiB now, 32 MiB of it reserved");
    assert_eq!(explained(vec![guest("db", 64)]).summary, "has kept its first target of 64 MiB: the target fits");
}

#[test]
fn a_guest_without_a_process_reads_what_it_waits_for() {
    let stopped = GuestStatus { ending: Some("stopped".into()), state: GuestState::Ended, ..guest("db", 64) };
    assert_eq!(explained(vec![stopped.clone()]).summary, "does not run: stopped");
    let mut queued = GuestStatus { state: GuestState::Queued, ..stopped.clone() };
    queued.service.until = Some(Duration::from_secs(9));
    let summary = explained(vec![queued]).summary;
    assert_eq!(summary, "waits until 12:00:09 to start: its min of 32 MiB must be free, and 4 MiB of the pool is");
    let mut waiting = GuestStatus { state: GuestState::BackingOff, ..stopped };
    waiting.service.until = Some(Duration::from_secs(9));
    assert!(explained(vec![waiting]).summary.starts_with("starts again at 12:00:09, as its restart rule is never"));
}

#[test]
fn a_guest_that_is_short_reads_what_it_lacks() {
    let explanation = explained(vec![short("web", 96, 144), guest("db", 256)]);
    assert_eq!(find(&explanation.details, "it lacks"), "it lacks 48 MiB: 4 MiB of the pool of 512 MiB is free");
    find(&explanation.remedies, "`aerostat pool 560M`");
    let waiting = GuestStatus { wanted: mib(10), ..guest("web", 96) };
    find(&explained(vec![waiting]).details, "threads in it wait for 10 MiB");
}

#[test]
fn memory_that_is_held_by_shares_is_moved_by_shares() {
    let mut db = guest("db", 256);
    db.subscription = Subscription { shares: Shares::HIGH, ..db.subscription };
    let explanation = explained(vec![short("web", 96, 144), db]);
    let line = "db holds 256 MiB: 0 % of it idle, under its 2000 shares; this guest has 1000";
    assert_eq!(find(&explanation.details, "db holds"), line);
    find(&explanation.remedies, "`aerostat set web --shares 2000`");
}

#[test]
fn memory_that_is_reserved_is_freed_by_a_lower_reservation() {
    let mut db = guest("db", 256);
    db.subscription.reservation = mib(256);
    let explanation = explained(vec![short("web", 96, 144), db]);
    assert_eq!(find(&explanation.details, "db holds"), "db holds 256 MiB: its reservation is 256 MiB");
    find(&explanation.remedies, "`aerostat set db --reservation 32M`");
    assert!(!explanation.remedies.iter().any(|line| line.contains("--shares")), "shares would not help");
}

#[test]
fn memory_below_a_minimum_is_freed_by_a_lower_minimum() {
    let mut db = guest("db", 256);
    db.limits.min = mib(256);
    let explanation = explained(vec![short("web", 96, 144), db]);
    assert_eq!(find(&explanation.details, "db holds"), "db holds 256 MiB: its min is 256 MiB");
    find(&explanation.remedies, "`aerostat set db --min SIZE`");
}

#[test]
fn memory_under_a_fixed_target_is_freed_by_the_scheduler() {
    let mut db = guest("db", 256);
    db.service.pinned = Some(mib(256));
    let explanation = explained(vec![short("web", 96, 144), db]);
    assert_eq!(find(&explanation.details, "db holds"), "db holds 256 MiB: a user has fixed its target at 256 MiB");
    find(&explanation.remedies, "`aerostat target db auto`");
}

#[test]
fn an_uncooperative_guest_is_named_and_can_be_restarted() {
    let mut db = guest("db", 64);
    db.resident = mib(256);
    db.decision = Some(decision(64, 64, Reason::Uncooperative));
    let explanation = explained(vec![short("web", 96, 144), db.clone()]);
    let line = "db holds 256 MiB: it does not follow its target of 64 MiB (uncooperative)";
    assert_eq!(find(&explanation.details, "db holds"), line);
    find(&explanation.remedies, "`aerostat restart db`");
    db.decision = Some(decision(64, 64, Reason::Fits));
    find(&explained(vec![short("web", 96, 144), db]).details, "db holds 256 MiB: it is releasing 192 MiB");
}

#[test]
fn a_guest_that_ignores_its_target_and_what_is_done_about_it_are_named() {
    let mut db = guest("db", 64);
    (db.resident, db.paged_out) = (mib(200), Some(mib(56)));
    let enforcement = EnforcementStatus {
        since: Duration::from_secs(3),
        withheld: mib(192),
        rung: Rung::Paging,
        rung_since: Duration::from_secs(4),
        cause: Cause::Ignores,
        next: Some((Rung::Paused, Duration::from_millis(4500))),
    };
    db.enforcement = Some(enforcement);
    let explanation = explained(vec![short("web", 96, 144), db.clone()]);
    let line = "db holds 200 MiB: it is 192 MiB above its target, as it ignores its target: the host pages it out; \
                after 4.5 s more of that it is paused";
    assert_eq!(find(&explanation.details, "db holds"), line);
    find(&explanation.remedies, "`aerostat restart db`");
    let line = "since 12:00:03: it is 192 MiB above its target, as it ignores its target: the host pages it out; \
                after 4.5 s more of that it is paused; 56 MiB of it are paged out";
    assert_eq!(find(&explained(vec![db.clone()]).details, "since"), line);
    db.enforcement = Some(EnforcementStatus { rung: Rung::Asked, next: None, ..enforcement });
    assert!(!explained(vec![db]).details.iter().any(|line| line.starts_with("since")), "balloons take a moment");
}

#[test]
fn a_guest_at_its_maximum_needs_a_larger_one() {
    let mut web = GuestStatus { wanted: mib(10), ..guest("web", 256) };
    web.limits.max = mib(256);
    let explanation = explained(vec![web.clone(), guest("db", 64)]);
    assert_eq!(find(&explanation.details, "it lacks"), "it lacks 10 MiB: it has its max of 256 MiB");
    assert_eq!(explanation.remedies, ["`aerostat set web --max 266M` lets it grow"]);
    web.machine = mib(256);
    find(&explained(vec![web]).remedies, "stop it and `aerostat set web --max 266M`");
}

#[test]
fn a_guest_with_a_fixed_target_is_told_so() {
    let mut web = short("web", 96, 144);
    web.service.pinned = Some(mib(96));
    let explanation = explained(vec![web, guest("db", 64)]);
    assert_eq!(find(&explanation.details, "it lacks"), "it lacks 48 MiB: a user has fixed its target at 96 MiB");
    assert_eq!(explanation.remedies, ["`aerostat target web auto` leaves its target to the scheduler"]);
}

#[test]
fn the_largest_holders_come_first_and_the_rest_is_a_sum() {
    let others = (1..=7).map(|number| guest(&format!("g{number}"), 10 * number));
    let details = explained([short("web", 96, 144)].into_iter().chain(others).collect()).details;
    assert!(details[2].starts_with("g7 holds 70 MiB") && details[6].starts_with("g3 holds"), "{details:#?}");
    assert_eq!(details[7], "2 more guests hold 30 MiB");
}
