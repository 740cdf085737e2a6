use super::{Generations, History, Page, SETTLER, SETTLER_EVERY, Trust, YOUNGEST};
use crate::policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};

/// Returns the age after visits that found the page touched (`true`) or not; `None` when it is to
/// be evicted.
fn after(policy: &mut Generations, mut age: Age, visits: &[bool]) -> Option<Age> {
    for &accessed in visits {
        match policy.visited(Seen { age, accessed }) {
            Verdict::Keep(next) => age = next,
            Verdict::Evict => return None,
        }
    }
    Some(age)
}

/// Lets a page with `history` come back at once.
fn regret(policy: &mut Generations, history: History) -> Age {
    let age = Page { history, generation: 0 }.encode();
    policy.arrived(Arrival::Refault(Refault { distance: 1, resident: 1000, age }))
}

#[test]
fn a_page_touched_once_is_evicted_by_the_second_visit() {
    let mut policy = Generations::default();
    let fresh = policy.arrived(Arrival::First);
    let age = after(&mut policy, fresh, &[true]);
    assert_eq!(age.map(Page::decode), Some(Page { history: History::Unproven, generation: 0 }));
    assert_eq!(after(&mut policy, fresh, &[true, false]), None);
}

#[test]
fn a_page_touched_again_survives_seven_passes() {
    let mut policy = Generations::default();
    let fresh = policy.arrived(Arrival::First);
    let age = after(&mut policy, fresh, &[true, true]);
    assert_eq!(age.map(Page::decode), Some(Page { history: History::Proven, generation: YOUNGEST }));
    assert!(after(&mut policy, fresh, &[&[true, true][..], &[false; 7]].concat()).is_some());
    assert_eq!(after(&mut policy, fresh, &[&[true, true][..], &[false; 8]].concat()), None);
}

#[test]
fn the_age_grows_while_a_page_is_not_used() {
    let mut policy = Generations::default();
    let fresh = policy.arrived(Arrival::First);
    let mut age = |visits: &[bool]| {
        let age = after(&mut policy, fresh, visits).unwrap();
        policy.age(age)
    };
    assert_eq!(age(&[true]), YOUNGEST, "no use is known");
    assert_eq!([age(&[true, true]), age(&[true, true, false]), age(&[true, true, false, false, false])], [0, 1, 3]);
    policy.trust = Trust::Given;
    let age = |generation| policy.age(Page { history: History::Proven, generation }.encode());
    assert_eq!([age(YOUNGEST), age(1), age(0)], [0, 0, 1], "fewer generations, and those above are in use too");
}

#[test]
fn a_prefetched_page_is_evicted_unless_it_is_touched() {
    let mut policy = Generations::default();
    let prefetched = policy.arrived(Arrival::Prefetch);
    assert_eq!(after(&mut policy, prefetched, &[false]), None);
    assert!(after(&mut policy, prefetched, &[true]).is_some());
    assert_eq!(after(&mut policy, prefetched, &[true, false]), None);
}

#[test]
fn one_in_a_few_pages_that_come_back_settles() {
    let mut policy = Generations::default();
    let generations =
        (0..u32::from(SETTLER_EVERY) * 3).map(|_| Page::decode(regret(&mut policy, History::Proven)).generation);
    assert_eq!(generations.filter(|&generation| generation == SETTLER).count(), 3);
}

#[test]
fn a_settler_of_a_longer_loop_begins_in_the_youngest_generation() {
    let mut policy = Generations::default();
    let later = Refault { distance: 3000, resident: 1000, age: Age(0) };
    let generations = (0..SETTLER_EVERY).map(|_| Page::decode(policy.arrived(Arrival::Refault(later))).generation);
    assert_eq!(generations.max(), Some(YOUNGEST));
}

#[test]
fn a_page_that_comes_back_late_is_new() {
    let mut policy = Generations::default();
    for _ in 0..100 {
        let late = Refault { distance: 4001, resident: 1000, age: Age(0) };
        assert_eq!(policy.arrived(Arrival::Refault(late)), policy.arrived(Arrival::First));
    }
}

#[test]
fn trust_is_given_while_only_unproven_pages_are_regretted() {
    let mut policy = Generations::default();
    for _ in 0..100 {
        policy.count_eviction(History::Proven);
        policy.count_eviction(History::Unproven);
        regret(&mut policy, History::Unproven);
    }
    assert_eq!(policy.trust, Trust::Given);
    for _ in 0..200 {
        policy.count_eviction(History::Proven);
        regret(&mut policy, History::Proven);
    }
    assert_eq!(policy.trust, Trust::Earned);
}

#[test]
fn without_evictions_of_proven_pages_trust_does_not_change() {
    let mut policy = Generations::default();
    for _ in 0..100 {
        policy.count_eviction(History::Unproven);
        regret(&mut policy, History::Unproven);
    }
    assert_eq!(policy.trust, Trust::Earned, "a loop looks like this");
}

#[test]
fn after_a_pass_without_old_pages_the_next_skips_generations() {
    let mut policy = Generations::default();
    let age = |generation| Page { history: History::Proven, generation }.encode();
    assert_eq!(after(&mut policy, age(6), &[false]), Some(age(5)));
    policy.pass_ended(Pass { visited: 1, evicted: 0 });
    assert_eq!(after(&mut policy, age(5), &[false]), None);
    assert_eq!(after(&mut policy, age(7), &[false]), Some(age(1)));
    policy.pass_ended(Pass { visited: 2, evicted: 1 });
    assert_eq!(after(&mut policy, age(2), &[false]), Some(age(1)), "and the pass after it doesn't");
}
