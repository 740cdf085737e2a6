//! What holds whatever guests do: ideal, limited, stuck, stuck at times, lying or crashing ones.

use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use proptest::prelude::{Just, Strategy};
use proptest::{collection::vec, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::test_characters::{Character, Fleet, Spec, any_character, character, enforceable, means, spec};
use super::{IgnoredTarget, Limits, Means, Shares};

/// What the last tenth of a change may be: targets move in steps, and small ones are left alone.
const DEAD_BAND: u64 = 2;

fn constant() -> impl Strategy<Value = Character> {
    prop_oneof![
        4 => Just(Character::Ideal),
        4 => Just(Character::Swapping),
        1 => Just(Character::Limited),
        1 => Just(Character::Stuck { from: 20 }),
        1 => Just(Character::ClaimsAll),
        1 => Just(Character::ClaimsNothing),
    ]
}

/// A guest that does not follow, or whose process does not.
fn ignoring() -> impl Strategy<Value = Character> {
    prop_oneof![
        3 => (0_u32..50).prop_map(|from| Character::Stuck { from }),
        1 => (1_u32..150).prop_map(|period| Character::StuckAtTimes { period }),
        1 => Just(Character::Limited),
        1 => Just(Character::Lying),
        1 => (0_u32..50).prop_map(|from| Character::Stopped { from }),
    ]
}

proptest! {
    /// The checks are in [`Fleet::step`]: Σ held ≤ pool in the middle of a plan, min ≤ target ≤
    /// max, and every decision explains itself.
    #[test]
    fn no_character_overdraws_the_pool(
        pool in 40_u64..600,
        tax in 0_u8..=100,
        specs in vec(enforceable(any_character(), means()), 1..8),
        late in vec(enforceable(any_character(), means()), 0..3),
    ) {
        let mut fleet = Fleet::new(pool, tax, &specs);
        fleet.run(150);
        late.into_iter().for_each(|spec| fleet.admit(spec));
        fleet.run(350);
    }

    /// Whatever a guest or its process does: where the host can page its memory or end it, it holds
    /// no more than its target after a bounded time, and others have their part.
    #[test]
    fn guests_that_do_not_follow_are_confined(
        pool in 60_u64..600,
        honest in vec(spec(Just(Character::Ideal)), 1..4),
        others in vec(enforceable(ignoring(), prop_oneof![
            3 => Just(Means::Paging(IgnoredTarget::Page)),
            1 => Just(Means::Paging(IgnoredTarget::Pause)),
            1 => Just(Means::Paging(IgnoredTarget::Kill)),
            1 => Just(Means::Process(IgnoredTarget::Kill)),
        ]), 1..4),
    ) {
        let mut fleet = Fleet::new(pool, 0, &[others, honest].concat());
        fleet.run(2000);
        let minima: u64 = fleet.guests.iter().map(|guest| guest.spec.min).sum();
        let share = pool.saturating_sub(minima) / (fleet.guests.len() as u64);
        for guest in &fleet.guests {
            let target = fleet.scheduler.target(guest.id).unwrap().0 / HUGE_FRAMES;
            let owed = guest.spec.needs.min(guest.spec.min + guest.spec.more).min(share.saturating_sub(DEAD_BAND));
            if guest.is_honest() {
                prop_assert!(target >= owed, "{target} of {owed}: {:?}", guest.spec);
            }
            // While others lack memory, the guest withholds none.
            let resident = guest.resident.0 / HUGE_FRAMES;
            let is_wanted = fleet.guests.iter().any(|other| other.is_honest() && other.lacks() > FrameCount::ZERO);
            prop_assert!(!is_wanted || resident <= target, "{resident} in {target}: {guest:?}");
        }
    }

    /// A confined guest keeps its part as an honest one does, and memory does not move to and fro.
    #[test]
    fn confined_guests_keep_what_they_are_owed(
        pool in 60_u64..600,
        honest in vec(spec(Just(Character::Ideal)), 1..4),
        stuck in vec(enforceable(
            (0_u32..50).prop_map(|from| Character::Stuck { from }),
            Just(Means::Paging(IgnoredTarget::Page)),
        ), 1..4),
    ) {
        let mut fleet = Fleet::new(pool, 0, &[stuck, honest].concat());
        fleet.run(4000);
        let minima: u64 = fleet.guests.iter().map(|guest| guest.spec.min).sum();
        let share = pool.saturating_sub(minima) / (fleet.guests.len() as u64);
        for (guest, target) in fleet.guests.iter().zip(fleet.targets()) {
            // A guest that has grown no larger has no use for more.
            let size = guest.size.0 / HUGE_FRAMES;
            let owed = guest.spec.needs.min(size).min(share.saturating_sub(DEAD_BAND)).max(guest.spec.min);
            prop_assert!(target >= owed, "{target} of {owed}: {guest:?}");
        }
        let before = fleet.targets();
        for _ in 0..200 {
            fleet.step();
            prop_assert_eq!(&fleet.targets(), &before);
        }
    }

    /// A high tax makes much of little noise in activity, so it is at most the default here.
    #[test]
    fn equal_guests_converge_to_equal_sizes(
        pool in 60_u64..600,
        tax in 0_u8..=100,
        like in spec(prop_oneof![Just(Character::Ideal), Just(Character::Swapping)]),
        began_with in vec(0_u64..300, 2..6),
    ) {
        let specs: Vec<Spec> = began_with.iter().map(|&needs| Spec { needs, min: 2, ..like }).collect();
        let mut fleet = Fleet::new(pool, tax, &specs);
        fleet.run(100);
        fleet.guests.iter_mut().for_each(|guest| guest.spec.needs = like.needs);
        // Long enough for the slow average of activity, and for patience.
        fleet.run(4000);
        let targets = fleet.targets();
        let (least, most) = (targets.iter().min().unwrap(), targets.iter().max().unwrap());
        prop_assert!(most - least <= 2 * DEAD_BAND, "{targets:?}");
    }

    #[test]
    fn without_a_tax_idleness_does_not_matter(
        pool in 60_u64..600,
        specs in vec(spec(Just(Character::Ideal)), 1..6),
        idle in vec(0_u64..=100, 6),
    ) {
        let others: Vec<Spec> = specs.iter().zip(idle).map(|(spec, idle)| Spec { idle, ..*spec }).collect();
        let (mut fleet, mut other) = (Fleet::new(pool, 0, &specs), Fleet::new(pool, 0, &others));
        for _ in 0..200 {
            fleet.step();
            other.step();
            prop_assert_eq!(fleet.targets(), other.targets());
        }
    }

    #[test]
    fn constant_load_gives_constant_targets(
        pool in 60_u64..600,
        tax in 0_u8..=100,
        specs in vec(spec(constant()), 1..6),
    ) {
        let mut fleet = Fleet::new(pool, tax, &specs);
        fleet.run(4000);
        let before = fleet.targets();
        for _ in 0..200 {
            fleet.step();
            prop_assert_eq!(&fleet.targets(), &before);
        }
    }

    /// A guest that moves to its swap disk what it has no room for gets what one gets whose threads
    /// wait for it, but for the reserve.
    #[test]
    fn swapping_guests_get_what_waiting_ones_get(
        pool in 60_u64..600,
        tax in 0_u8..=100,
        specs in vec(spec(Just(Character::Ideal)), 1..6),
    ) {
        let swapping: Vec<Spec> = specs.iter().map(|spec| Spec { character: Character::Swapping, ..*spec }).collect();
        let (mut waiting, mut swapping) = (Fleet::new(pool, tax, &specs), Fleet::new(pool, tax, &swapping));
        waiting.run(4000);
        swapping.run(4000);
        for (waiting, swapping) in waiting.targets().iter().zip(swapping.targets()) {
            let reserve = pool * 6 / 100 + 1;
            prop_assert!(waiting.abs_diff(swapping) <= reserve + 2 * DEAD_BAND, "{waiting} and {swapping}");
        }
    }

    /// Honest guests share what the others leave.
    #[test]
    fn guests_that_do_not_follow_block_no_others(
        pool in 60_u64..600,
        honest in vec(spec(Just(Character::Ideal)), 1..4),
        stuck in vec(spec(constant()), 1..4),
    ) {
        let mut fleet = Fleet::new(pool, 0, &[stuck, honest].concat());
        fleet.run(1000);
        let others: u64 = fleet.guests.iter().filter(|guest| !guest.is_honest()).map(|guest| guest.size.0).sum();
        let honest: Vec<_> = fleet.guests.iter().filter(|guest| guest.is_honest()).collect();
        // A guest that claims all has a claim to its share as well.
        let claimants = fleet.guests.iter().filter(|guest| guest.spec.character != Character::ClaimsNothing).count();
        let minima: u64 = honest.iter().map(|guest| guest.spec.min).sum();
        let share = pool.saturating_sub(others / HUGE_FRAMES + minima) / (claimants as u64);
        for guest in honest {
            let needs = guest.spec.needs.min(guest.spec.min + guest.spec.more);
            let target = fleet.scheduler.target(guest.id).unwrap().0 / HUGE_FRAMES;
            prop_assert!(target >= needs.min(share.saturating_sub(DEAD_BAND)), "{target} of {needs}, {share}");
        }
        prop_assert!(!fleet.scheduler.is_memory_coming(), "nothing is to be waited for");
    }

    /// A refusal changes nothing (the check is in [`Fleet::change`]); what is accepted holds in
    /// full.
    #[test]
    fn a_change_is_made_in_full_or_not_at_all(
        pool in 60_u64..600,
        specs in vec(spec(Just(Character::Ideal)), 2..5),
        changes in vec((0_usize..5, 1_u64..400, 0_u64..200, 1_u32..4000), 1..6),
    ) {
        let mut fleet = Fleet::new(pool, 75, &specs);
        for (index, min, more, shares) in changes {
            let index = index % fleet.guests.len();
            let min = FrameCount(min * HUGE_FRAMES);
            let limits = Limits { min, max: FrameCount(min.0 + more * HUGE_FRAMES) };
            let shares: Shares = shares.to_string().parse().unwrap();
            let minima = |fleet: &Fleet| fleet.guests.iter().map(|guest| guest.spec.min).sum::<u64>();
            let would_be = minima(&fleet) - fleet.guests[index].spec.min + min.0 / HUGE_FRAMES;
            let is_accepted = fleet.change(index, limits, shares);
            prop_assert_eq!(is_accepted, would_be <= pool);
            fleet.run(300);
            for (guest, target) in fleet.guests.iter().zip(fleet.targets()) {
                let most = guest.spec.min + guest.spec.more;
                prop_assert!((guest.spec.min..=most).contains(&target), "{target} of {:?}", guest.spec);
            }
        }
    }

    #[test]
    fn a_pool_that_can_not_honour_its_guarantees_is_refused(
        pool in 60_u64..600,
        smaller in 1_u64..600,
        specs in vec(spec(character()), 1..6),
    ) {
        let mut fleet = Fleet::new(pool, 75, &specs);
        fleet.run(20);
        let minima: u64 = fleet.guests.iter().map(|guest| guest.spec.min).sum();
        let before = format!("{:?}", fleet.scheduler);
        let is_accepted = fleet.scheduler.resize(FrameCount(smaller * HUGE_FRAMES)).is_ok();
        prop_assert_eq!(is_accepted, smaller >= minima);
        if !is_accepted {
            prop_assert_eq!(format!("{:?}", fleet.scheduler), before);
        }
    }
}
