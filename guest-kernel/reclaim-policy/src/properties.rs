//! Properties that hold for every policy, whatever programs do.

extern crate std;

use std::vec::Vec;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::{prop_assert, prop_oneof, proptest};

use crate::policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};
use crate::selection::Name;

/// An event in a small guest.
#[derive(Clone, Debug)]
enum Event {
    Arrival(Arrival),
    /// The page at this place is touched.
    Touch(usize),
    /// The hand visits that many pages.
    Visits(usize),
    /// The page at this place is unmapped.
    Unmap(usize),
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        proptest::strategy::Just(Arrival::First),
        proptest::strategy::Just(Arrival::Prefetch),
        // A swap entry may hold any byte and any count.
        (0_u64..3, proptest::num::u64::ANY, proptest::num::u64::ANY, proptest::num::u8::ANY).prop_map(
            |(near, distance, resident, age)| {
                let distance = if near == 0 { distance } else { distance % 64 };
                Arrival::Refault(Refault { distance, resident, age: Age(age) })
            }
        ),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        arrival().prop_map(Event::Arrival),
        (0_usize..64).prop_map(Event::Touch),
        (1_usize..100).prop_map(Event::Visits),
        (0_usize..64).prop_map(Event::Unmap),
    ]
}

/// A guest of a few pages, and its hand.
struct Guest<P> {
    policy: P,
    pages: Vec<(Age, bool)>,
    hand: usize,
    pass: Pass,
}

const NEW_PASS: Pass = Pass { visited: 0, evicted: 0 };

impl<P: Policy> Guest<P> {
    fn new(policy: P) -> Self {
        Self { policy, pages: Vec::new(), hand: 0, pass: NEW_PASS }
    }

    fn happen(&mut self, event: &Event) {
        let count = self.pages.len();
        match *event {
            Event::Arrival(how) => {
                let age = self.policy.arrived(how);
                self.pages.push((age, how != Arrival::Prefetch));
            }
            Event::Touch(at) if count > 0 => self.pages[at % count].1 = true,
            Event::Unmap(at) if count > 0 => {
                let at = at % count;
                self.pages.remove(at);
                self.hand -= usize::from(at < self.hand);
            }
            Event::Visits(visits) => (0..visits).for_each(|_| self.visit()),
            Event::Touch(_) | Event::Unmap(_) => {}
        }
    }

    fn visit(&mut self) {
        if self.hand >= self.pages.len() {
            self.hand = 0;
            let pass = core::mem::replace(&mut self.pass, NEW_PASS);
            self.policy.pass_ended(pass);
        }
        let Some((age, accessed)) = self.pages.get_mut(self.hand) else { return };
        self.pass.visited += 1;
        match self.policy.visited(Seen { age: *age, accessed: core::mem::take(accessed) }) {
            Verdict::Keep(next) => {
                *age = next;
                self.hand += 1;
            }
            Verdict::Evict => {
                self.pages.remove(self.hand);
                self.pass.evicted += 1;
            }
        }
    }
}

proptest! {
    #[test]
    fn a_page_is_evicted_even_if_all_pages_are_always_touched(
        events in vec(event(), 0..300),
        always_touched in proptest::bool::ANY,
    ) {
        for name in Name::ALL {
            let mut guest = Guest::new(name.policy());
            for event in &events {
                guest.happen(event);
            }
            guest.happen(&Event::Arrival(Arrival::First));
            let count = guest.pages.len();
            // The pass under way may evict nothing, so it does not count.
            let passes = match name {
                Name::Clock => crate::Clock::PASSES,
                Name::Generations => crate::Generations::PASSES,
            };
            let most = count * (1 + usize::try_from(passes).unwrap());
            let mut visits = 0;
            while guest.pages.len() == count {
                if always_touched {
                    guest.pages.iter_mut().for_each(|page| page.1 = true);
                }
                guest.visit();
                visits += 1;
                prop_assert!(visits <= most, "{name:?} found no victim among {count} pages in {visits} visits");
            }
        }
    }

    #[test]
    fn every_age_is_one_that_the_policy_knows(events in vec(event(), 0..300)) {
        for name in Name::ALL {
            let mut guest = Guest::new(name.policy());
            for event in &events {
                guest.happen(event);
                for (age, _) in &guest.pages {
                    let known = match name {
                        Name::Clock => 1,
                        // Three bits of generation, two of history.
                        Name::Generations => 32,
                    };
                    prop_assert!(age.0 < known, "{name:?} made {age:?}");
                }
            }
        }
    }

    #[test]
    fn in_an_idle_guest_all_pages_are_evicted(arrivals in vec(arrival(), 1..64)) {
        for name in Name::ALL {
            let mut guest = Guest::new(name.policy());
            for how in &arrivals {
                guest.happen(&Event::Arrival(*how));
            }
            // Every pass after the first moves an untouched page a generation on.
            for _ in 0..arrivals.len() * 12 {
                guest.visit();
            }
            prop_assert!(guest.pages.is_empty(), "{name:?} kept {:?}", guest.pages);
        }
    }
}
