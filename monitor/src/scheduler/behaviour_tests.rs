//! What the scheduler does for whom: shares, tax, reservations, kinds of need, and guests that do
//! not follow.

use aerostat_abi::units::FrameCount;

use super::test_fleet::{Fleet, mib, shares};
use super::{AdmissionError, GuestId, Limits, Reason, Shares, Subscription};

#[test]
fn a_scarce_pool_is_shared_in_proportion_to_shares() {
    let mut fleet = Fleet::with_tax(700, 75);
    for level in ["low", "normal", "high"] {
        fleet.admit(800, shares(level));
    }
    fleet.run(100);
    assert_eq!(fleet.targets(), [100, 200, 400]);
}

#[test]
fn equal_guests_get_equal_sizes_however_they_began() {
    let mut fleet = Fleet::with_tax(600, 75);
    fleet.admit(560, Subscription::default());
    fleet.run(50);
    assert!(fleet.targets()[0] > 500);
    fleet.admit(560, Subscription::default());
    fleet.run(100);
    assert_eq!(fleet.targets(), [300, 300]);
}

/// The experiment of the OSDI paper's figure 7: two guests with equal shares, one of them idle.
#[test]
fn a_tax_moves_idle_memory_and_none_leaves_it() {
    let sizes_with = |percent| {
        let mut fleet = Fleet::with_tax(512, percent);
        fleet.admit(480, Subscription::default());
        fleet.admit(480, Subscription::default());
        fleet.run(100);
        fleet.guests[0].usage.idle = mib(480);
        fleet.run(3000);
        fleet.targets()
    };
    assert_eq!(sizes_with(0), [256, 256]);
    let [idle, busy] = sizes_with(75)[..] else { panic!("two guests") };
    assert!(busy > 3 * idle && idle >= 80, "{idle} and {busy}");
    let [idle, _] = sizes_with(100)[..] else { panic!("two guests") };
    assert!(idle <= 36, "{idle}: all but its minimum and what is left over");
}

/// The same, of guests that never wait: they evict their own pages.
#[test]
fn a_guest_that_swaps_gets_the_idle_memory_of_another() {
    let sizes_with = |percent| {
        let mut fleet = Fleet::with_tax(512, percent);
        fleet.admit(480, Subscription::default());
        fleet.admit(480, Subscription::default());
        fleet.guests.iter_mut().for_each(|guest| guest.is_swapping = true);
        fleet.run(500);
        fleet.guests[0].usage.idle = mib(480);
        let mut reasons = [Vec::new(), Vec::new()];
        for _ in 0..3000 {
            // Of the evicted pages of the idle guest, none is touched.
            fleet.guests[0].usage.restored = 0;
            for (reasons, decision) in reasons.iter_mut().zip(fleet.run(1)) {
                reasons.push(decision.reason);
            }
        }
        (fleet.targets(), reasons)
    };
    let (targets, _) = sizes_with(0);
    assert!(targets[0].abs_diff(targets[1]) <= 2, "{targets:?}");
    let (targets, [idle, busy]) = sizes_with(75);
    assert!(targets[1] > 3 * targets[0] && targets[0] >= 80, "{targets:?}");
    assert!(idle.contains(&Reason::IdleTaxed));
    assert!(busy.contains(&Reason::Refaults));
}

/// A guest that swaps keeps some frames free for itself. To shrink it to what it uses would make it
/// evict as much again.
#[test]
fn a_guest_that_has_evicted_pages_is_not_squeezed_by_its_own_reclaim() {
    let mut fleet = Fleet::with_tax(512, 0);
    let [idle, busy] = [400, 400].map(|needs| fleet.admit(needs, Subscription::default()));
    fleet.guests[busy].is_swapping = true;
    fleet.run(100);
    fleet.guests[idle].usage.evicted = mib(160);
    for _ in 0..2000 {
        // Two per cent of its size, and two MiB.
        let size = fleet.guests[idle].size;
        fleet.guests[idle].needs = size.saturating_sub(mib(2)).saturating_sub(FrameCount(size.0 / 50));
        fleet.run(1);
    }
    let targets = fleet.targets();
    assert!(targets[busy] - targets[idle] <= 4, "{targets:?}");
}

#[test]
fn a_guest_that_swaps_asks_for_all_that_it_works_on_and_no_more() {
    let mut fleet = Fleet::with_tax(1024, 75);
    fleet.admit(400, Subscription::default());
    fleet.guests[0].is_swapping = true;
    let mut decisions = fleet.run(100);
    assert!((400..440).contains(&fleet.targets()[0]), "{:?}", fleet.targets());
    let settled = fleet.targets();
    for _ in 0..1000 {
        decisions = fleet.run(1);
        assert_eq!(fleet.targets(), settled, "the load is constant");
    }
    assert_eq!(decisions[0].inputs.returning, FrameCount::ZERO, "all is in memory");
}

#[test]
fn memory_does_not_count_as_idle_at_once() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(480, Subscription::default());
    fleet.admit(480, Subscription::default());
    fleet.run(3000);
    fleet.guests[0].usage.idle = mib(480);
    fleet.run(10);
    assert!(fleet.targets()[0] > 240, "a fifth of a second says little: {:?}", fleet.targets());
}

#[test]
fn a_reservation_is_honoured_while_it_is_used() {
    let mut fleet = Fleet::with_tax(512, 75);
    let reserved = Subscription { shares: Shares::LOW, reservation: mib(300) };
    let keeper = fleet.admit(400, reserved);
    fleet.admit(900, shares("high"));
    fleet.run(100);
    assert_eq!(fleet.targets(), [300, 212]);
    fleet.guests[keeper].needs = mib(20);
    fleet.run(100);
    assert!(fleet.targets()[1] > 470, "what is not used others may: {:?}", fleet.targets());
}

#[test]
fn guarantees_that_the_pool_does_not_have_are_refused() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(100, Subscription { reservation: mib(300), ..Subscription::default() });
    let limits = Limits { min: mib(16), max: mib(1024) };
    let refused = fleet.scheduler.admit(limits, Subscription { reservation: mib(213), ..Subscription::default() });
    assert_eq!(refused, Err(AdmissionError::GuaranteesExceedPool { guaranteed: mib(513), pool: mib(512) }));
    let (id, _) =
        fleet.scheduler.admit(limits, Subscription { reservation: mib(212), ..Subscription::default() }).unwrap();
    assert_eq!(id, GuestId(1), "a refusal changed nothing");
}

#[test]
fn file_pages_make_room_for_what_others_use() {
    let mut fleet = Fleet::with_tax(512, 75);
    let indexer = fleet.admit(900, Subscription::default());
    fleet.guests[indexer].usage.droppable = mib(880);
    fleet.run(50);
    assert!(fleet.targets()[indexer] > 440, "alone it may fill the pool but for a reserve: {:?}", fleet.targets());
    assert!(fleet.scheduler.free() >= mib(30), "{}", fleet.scheduler.free());
    fleet.admit(400, Subscription::default());
    fleet.run(3);
    assert!(fleet.targets()[1] >= 400, "{:?}", fleet.targets());
}

#[test]
fn a_target_is_never_below_what_the_guest_can_reach() {
    let mut fleet = Fleet::with_tax(512, 75);
    let committed = fleet.admit(400, Subscription::default());
    fleet.run(50);
    fleet.guests[committed].needs = mib(8);
    fleet.guests[committed].usage.unshrinkable = mib(400);
    fleet.admit(400, Subscription::default());
    for _ in 0..200 {
        fleet.run(1);
        assert!(fleet.targets()[committed] >= 400, "{:?}", fleet.targets());
    }
}

#[test]
fn a_stuck_guest_does_not_block_the_others() {
    let mut fleet = Fleet::with_tax(600, 75);
    let stuck = fleet.admit(560, Subscription::default());
    fleet.run(50);
    fleet.guests[stuck].is_stuck = true;
    let held = fleet.guests[stuck].size.mib();
    fleet.admit(560, Subscription::default());
    fleet.admit(20, Subscription::default());
    fleet.run(10);
    assert!(fleet.scheduler.is_memory_coming(), "it was asked just now");
    fleet.run(40);
    assert!(!fleet.scheduler.is_memory_coming(), "it has not begun to release anything");
    let decisions = fleet.run(200);
    assert_eq!(decisions[stuck].reason, Reason::Uncooperative);
    let share = (600 - held) / 2;
    assert_eq!(fleet.targets()[1..], [share, share], "the others share what it leaves");
    fleet.guests[stuck].is_stuck = false;
    fleet.run(100);
    let targets = fleet.targets();
    assert!(targets[0].abs_diff(targets[1]) <= 2, "it follows again, and shares again: {targets:?}");
}

/// A guest that releases a little from time to time is stuck as well: the others can't wait for it.
#[test]
fn a_guest_that_releases_next_to_nothing_is_uncooperative() {
    let mut fleet = Fleet::with_tax(600, 75);
    let trickling = fleet.admit(560, Subscription::default());
    fleet.run(50);
    fleet.guests[trickling].is_stuck = true;
    fleet.admit(560, Subscription::default());
    let mut paces = Vec::new();
    for _ in 0..300 {
        fleet.guests[trickling].size = fleet.guests[trickling].size.saturating_sub(FrameCount(1));
        let decisions = fleet.run(1);
        paces.push((decisions[trickling].reason == Reason::Uncooperative, fleet.scheduler.is_memory_coming()));
    }
    assert!(paces[150..].iter().all(|&pace| pace == (true, false)), "{:?}", &paces[150..]);
}

#[test]
fn a_guest_that_is_stuck_at_times_recovers_each_time() {
    let mut fleet = Fleet::with_tax(600, 75);
    let stuck = fleet.admit(560, Subscription::default());
    let other = fleet.admit(560, Subscription::default());
    for _ in 0..3 {
        fleet.guests[other].needs = mib(20);
        fleet.run(500);
        assert!(fleet.targets()[stuck] > 500, "{:?}", fleet.targets());
        fleet.guests[stuck].is_stuck = true;
        fleet.guests[other].needs = mib(560);
        assert_eq!(fleet.run(200)[stuck].reason, Reason::Uncooperative);
        fleet.guests[stuck].is_stuck = false;
        assert_ne!(fleet.run(3)[stuck].reason, Reason::Uncooperative);
        fleet.run(100);
        let targets = fleet.targets();
        assert!(targets[stuck].abs_diff(targets[other]) <= 2, "{targets:?}");
    }
}

#[test]
fn two_guests_that_alternate_are_soon_left_alone() {
    let mut fleet = Fleet::with_tax(1024, 75);
    fleet.admit(16, Subscription::default());
    fleet.admit(16, Subscription::default());
    let mut changes_of_turn = Vec::new();
    for turn in 0..50 {
        let large = turn % 2;
        fleet.guests[large].needs = mib(256);
        fleet.guests[1 - large].needs = mib(16);
        let mut changes = 0;
        for _ in 0..20 {
            changes += fleet.run(1).iter().filter(|decision| decision.is_change()).count();
        }
        changes_of_turn.push(changes);
    }
    assert!(changes_of_turn[..4].iter().sum::<usize>() > 0);
    assert_eq!(changes_of_turn[10..].iter().sum::<usize>(), 0, "{changes_of_turn:?}");
}

#[test]
fn a_waiting_guest_gets_memory_that_another_holds_beyond_its_share_by_a_huge_frame() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(900, Subscription::default());
    fleet.admit(100, Subscription::default());
    fleet.run(100);
    for needs in [102, 104, 106, 108] {
        fleet.guests[1].needs = mib(needs);
        fleet.run(3);
        assert!(fleet.targets()[1] >= needs, "{:?}", fleet.targets());
    }
}

#[test]
fn every_decision_says_why() {
    let mut fleet = Fleet::with_tax(512, 75);
    fleet.admit(900, Subscription::default());
    fleet.admit(100, Subscription::default());
    let mut needs = 1_u64;
    for _ in 0..500 {
        // A walk through sizes that repeats after a long time only.
        needs = needs.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        fleet.guests[usize::from(needs >> 63 == 1)].needs = mib(needs >> 40 & 0x3ff);
        for decision in fleet.run(1) {
            let is_raise = matches!(decision.reason, Reason::Demand | Reason::Pressure | Reason::Refaults);
            let is_lowering = matches!(
                decision.reason,
                Reason::Idle | Reason::NeededElsewhere | Reason::PoolShort | Reason::FairShare | Reason::IdleTaxed
            );
            assert_eq!(is_raise, decision.target > decision.from, "{decision:?}");
            assert_eq!(is_lowering, decision.target < decision.from, "{decision:?}");
            assert!(decision.inputs.firm <= decision.inputs.demand, "{decision:?}");
        }
    }
}
