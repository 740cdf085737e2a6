//! Requests of guests that share a pool.

use std::time::Duration;

use aerostat_abi::requests::{Answer, FiledRequest, Generation, Outcome, ResourceKind, Resources, Sequence, Urgency};
use aerostat_abi::units::FrameCount;

use super::super::test_fleet::{Fleet, SimpleGuest, mib, shares};
use super::super::{Holding, Limits, Subscription};

/// A request for memory as a test writes it: guest and amount in MiB.
struct Ask {
    guest: usize,
    sequence: u32,
    mib: u64,
    urgency: Urgency,
    ahead: Duration,
}

/// A request for `mib` in a second.
fn ask(guest: usize, sequence: u32, mib: u64) -> Ask {
    Ask { guest, sequence, mib, urgency: Urgency::Normal, ahead: Duration::from_secs(1) }
}

impl Fleet {
    fn ask(&mut self, Ask { guest, sequence, mib, urgency, ahead }: Ask) {
        let needed_at_ns = self.now.after(ahead).ns();
        let (kind, sequence) = (ResourceKind::Memory, Sequence(sequence));
        let request = FiledRequest { kind, sequence, urgency, amount: FrameCount::from_mib(mib).bytes(), needed_at_ns };
        self.scheduler.request(self.guests[guest].id, &request, self.now);
    }

    fn answer(&self, guest: usize) -> Answer {
        let mut answers = self.scheduler.answers(self.guests[guest].id);
        answers.find(|(kind, _)| *kind == ResourceKind::Memory).expect("the guest has asked").1
    }

    fn outcome(&self, guest: usize) -> Outcome {
        self.answer(guest).outcome
    }

    fn seconds(&mut self, seconds: u32) {
        self.run(seconds * 50);
    }

    /// Has a guest use all that it asked for.
    fn uses(&mut self, guest: usize, needs: u64) {
        self.guests[guest].needs = mib(needs);
    }
}

/// A pool of 512 MiB, a guest with 400 MiB of idle memory, and one that needs little.
fn beside_an_idle_giant() -> Fleet {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(400, shares("normal"));
    fleet.guests[0].usage.idle = mib(400);
    fleet.admit(32, shares("normal"));
    fleet.seconds(20);
    fleet
}

#[test]
fn what_was_asked_for_is_there_before_a_thread_waits() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(ask(1, 1, 220));
    fleet.seconds(1);
    assert_eq!(fleet.outcome(1), Outcome::Granted);
    assert!(fleet.targets()[1] >= 220, "{:?}", fleet.targets());
    assert!(fleet.targets()[0] < 400, "it came from idle memory");
    fleet.uses(1, 220);
    fleet.run(1);
    assert_eq!(fleet.guests[1].usage.wanted, FrameCount::ZERO);
    assert_eq!(fleet.outcome(1), Outcome::Used);
}

#[test]
fn a_claim_is_kept_until_it_expires_and_the_guest_is_then_trusted_less() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(ask(1, 1, 220));
    fleet.seconds(1);
    fleet.seconds(4);
    assert_eq!((fleet.outcome(1), fleet.targets()[1] >= 220), (Outcome::Granted, true));
    fleet.seconds(2);
    assert_eq!(fleet.outcome(1), Outcome::Expired);
    fleet.uses(0, 450);
    fleet.seconds(2);
    assert!(fleet.targets()[1] < 100, "it is free for others: {:?}", fleet.targets());
    fleet.ask(ask(1, 2, 220));
    fleet.seconds(2);
    assert!(fleet.targets()[1] < 100, "a guest that asked for too much gets what is left: {:?}", fleet.targets());
    fleet.seconds(30);
    fleet.ask(ask(1, 3, 220));
    fleet.seconds(2);
    assert_eq!(fleet.outcome(1), Outcome::Granted);
}

#[test]
fn a_withdrawn_request_claims_nothing() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(ask(1, 1, 220));
    fleet.seconds(1);
    fleet.ask(ask(1, 2, 0));
    fleet.uses(0, 450);
    fleet.seconds(2);
    assert_eq!(fleet.outcome(1), Outcome::Withdrawn);
    assert!(fleet.targets()[1] < 100, "{:?}", fleet.targets());
}

#[test]
fn a_request_is_no_way_around_shares() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(600, shares("normal"));
    fleet.admit(600, shares("normal"));
    fleet.seconds(5);
    let before = fleet.targets();
    fleet.ask(Ask { urgency: Urgency::High, ..ask(1, 1, 500) });
    fleet.seconds(3);
    assert_eq!((fleet.targets(), fleet.outcome(1)), (before, Outcome::AtFairShare));
    fleet.seconds(4);
    assert_eq!(fleet.outcome(1), Outcome::Late);
}

#[test]
fn a_request_beyond_the_fair_share_is_granted_in_part() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(600, shares("high"));
    fleet.admit(32, shares("normal"));
    fleet.seconds(5);
    fleet.ask(ask(1, 1, 400));
    fleet.seconds(2);
    let granted = FrameCount::from_bytes_floor(fleet.answer(1).granted).mib();
    assert_eq!((fleet.outcome(1), granted), (Outcome::PartlyGranted, fleet.targets()[1]));
    assert!((150..=180).contains(&granted), "a third of the pool: {granted}");
}

#[test]
fn a_distant_deadline_takes_nothing_from_others_until_it_is_near() {
    let mut fleet = beside_an_idle_giant();
    let before = fleet.targets();
    fleet.ask(Ask { ahead: Duration::from_secs(8), ..ask(1, 1, 220) });
    fleet.seconds(5);
    assert_eq!(fleet.outcome(1), Outcome::Queued);
    assert_eq!(fleet.targets()[0], before[0]);
    fleet.seconds(2);
    assert_eq!((fleet.outcome(1), fleet.targets()[1] >= 220), (Outcome::Granted, true));
}

#[test]
fn low_urgency_gets_what_is_free_only() {
    let mut fleet = beside_an_idle_giant();
    let before = fleet.targets();
    fleet.ask(Ask { urgency: Urgency::Low, ..ask(1, 1, 300) });
    fleet.seconds(3);
    assert_eq!(fleet.targets()[0], before[0]);
    assert!(fleet.targets()[1] >= before[1]);
    assert_ne!(fleet.outcome(1), Outcome::Granted);
}

#[test]
fn impossible_requests_are_denied_and_change_nothing() {
    let mut fleet = beside_an_idle_giant();
    let before = fleet.targets();
    fleet.ask(ask(1, 1, 4000));
    let processors = FiledRequest {
        kind: ResourceKind::Processors,
        sequence: Sequence(1),
        urgency: Urgency::High,
        amount: 8,
        needed_at_ns: 0,
    };
    fleet.scheduler.request(fleet.guests[1].id, &processors, fleet.now);
    fleet.seconds(2);
    let answers: Vec<_> =
        fleet.scheduler.answers(fleet.guests[1].id).map(|(kind, answer)| (kind, answer.outcome)).collect();
    assert_eq!(answers, [(ResourceKind::Memory, Outcome::BeyondMax), (ResourceKind::Processors, Outcome::NotShared)]);
    assert_eq!(fleet.targets(), before);
}

#[test]
fn replays_are_ignored() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(ask(1, 5, 220));
    fleet.seconds(1);
    fleet.ask(ask(1, 5, 0));
    fleet.ask(ask(1, 4, 0));
    fleet.seconds(1);
    assert_eq!((fleet.answer(1).sequence, fleet.outcome(1)), (Sequence(5), Outcome::Granted));
}

#[test]
fn a_flood_is_denied_and_costs_no_other_guest() {
    let mut fleet = beside_an_idle_giant();
    fleet.uses(0, 240);
    fleet.guests[0].usage.idle = FrameCount::ZERO;
    fleet.seconds(20);
    let mut denied = 0;
    for sequence in 1..1000 {
        fleet.ask(ask(1, sequence, if sequence % 2 == 0 { 1000 } else { 0 }));
        fleet.run(1);
        denied += u32::from(fleet.outcome(1) == Outcome::TooMany);
        assert!(fleet.targets()[0] >= 240, "the neighbour keeps what it uses: {:?}", fleet.targets());
    }
    assert!(denied > 800, "{denied} of 1000 were denied");
}

#[test]
fn a_guest_that_asks_and_withdraws_does_not_make_its_neighbour_swing() {
    let mut fleet = beside_an_idle_giant();
    fleet.uses(0, 400);
    fleet.guests[0].usage.idle = FrameCount::ZERO;
    fleet.seconds(20);
    let mut shrinks = 0;
    let mut before = fleet.targets()[0];
    for sequence in 1..600 {
        fleet.ask(ask(1, sequence, if sequence % 2 == 0 { 0 } else { 300 }));
        for _ in 0..10 {
            fleet.run(1);
            let target = fleet.targets()[0];
            shrinks += u32::from(target + 32 < before);
            before = target;
        }
    }
    assert!((1..=20).contains(&shrinks), "shrunk {shrinks} times in two minutes");
}

#[test]
fn a_guest_that_may_have_less_than_it_asked_for_hears_of_it() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(Ask { ahead: Duration::from_secs(60), ..ask(1, 1, 500) });
    fleet.run(1);
    let limits = Limits { min: mib(16), max: mib(256) };
    fleet.scheduler.change(fleet.guests[1].id, limits, Subscription::default()).unwrap();
    fleet.run(1);
    assert_eq!(fleet.outcome(1), Outcome::BeyondMax);
}

/// Another scheduler with the same guests, each with its target, which are told what the first one
/// has told them.
fn taken_over(fleet: &Fleet) -> Fleet {
    let mut next = Fleet::with_tax(512, 75);
    next.now = fleet.now;
    for guest in &fleet.guests {
        let target = fleet.scheduler.target(guest.id).unwrap();
        let limits = Limits { min: mib(16), max: mib(512) };
        let id = next.scheduler.adopt(limits, Subscription::default(), Holding { target, size: target });
        let mut told = Resources::new(Generation(3));
        for (kind, answer) in fleet.scheduler.answers(guest.id) {
            told.set_answer(kind, Some(answer));
        }
        next.scheduler.go_on_from(id, &told);
        next.guests.push(SimpleGuest { id, ..*guest });
    }
    next
}

#[test]
fn what_was_answered_for_good_is_not_granted_again_by_a_successor() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(ask(1, 1, 200));
    fleet.seconds(1);
    assert_eq!(fleet.outcome(1), Outcome::Granted);
    fleet.seconds(8);
    assert_eq!(fleet.outcome(1), Outcome::Expired);
    let mut next = taken_over(&fleet);
    // The guest's latest request is still in its register page, and is read with each poll.
    next.ask(ask(1, 1, 200));
    next.seconds(1);
    assert_eq!(next.outcome(1), Outcome::Expired);
    assert!(!next.scheduler.guests[&next.guests[1].id].requests.asks_beyond(mib(0)), "it is in force again");
    next.ask(ask(1, 2, 100));
    next.seconds(1);
    assert!(matches!(next.outcome(1), Outcome::Granted | Outcome::Queued), "{:?}", next.outcome(1));
}

#[test]
fn a_grant_that_is_open_stays_one_under_a_successor() {
    let mut fleet = beside_an_idle_giant();
    fleet.ask(Ask { ahead: Duration::from_secs(2), ..ask(1, 1, 200) });
    fleet.seconds(1);
    assert_eq!(fleet.outcome(1), Outcome::Granted);
    let mut next = taken_over(&fleet);
    next.ask(Ask { ahead: Duration::from_secs(1), ..ask(1, 1, 200) });
    assert_eq!(next.outcome(1), Outcome::Granted, "it is not queued anew");
    next.seconds(1);
    assert_eq!(next.outcome(1), Outcome::Granted);
    next.seconds(8);
    assert_eq!(next.outcome(1), Outcome::Expired, "it was granted, so it is not late");
}
