//! CLOCK, or second chance: a page that was touched since the hand's last visit stays, any other is
//! evicted.
//!
//! F. J. Corbató, "A Paging Experiment with the Multics System", 1968. It approximates LRU with one
//! bit a page, and shares LRU's weakness: a scan, or a loop a little larger than memory, evicts
//! everything.

use crate::policy::{Age, Arrival, Pass, Policy, Seen, Verdict};

/// The policy. A page's age is always zero.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The last pass found every page touched, so this one evicts each page that it visits.
    overrun: bool,
}

impl Policy for Clock {
    const PASSES: u32 = 2;

    fn arrived(&mut self, _how: Arrival) -> Age {
        Age(0)
    }

    fn visited(&mut self, page: Seen) -> Verdict {
        if page.accessed && !self.overrun { Verdict::Keep(Age(0)) } else { Verdict::Evict }
    }

    /// A page has no history here: the first visit is as any other.
    fn is_new(&self, _page: Seen) -> bool {
        false
    }

    fn pass_ended(&mut self, pass: Pass) {
        self.overrun = pass.evicted == 0;
    }

    /// Every page that stays was in use.
    fn age(&self, _age: Age) -> u8 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use crate::policy::{Arrival, Pass, Policy, Seen, Verdict};

    #[test]
    fn a_touched_page_survives_one_visit() {
        let mut clock = Clock::default();
        let age = clock.arrived(Arrival::First);
        let Verdict::Keep(age) = clock.visited(Seen { age, accessed: true }) else { panic!("it was touched") };
        assert_eq!(clock.visited(Seen { age, accessed: false }), Verdict::Evict);
    }

    #[test]
    fn after_a_pass_of_touched_pages_the_next_one_evicts() {
        let mut clock = Clock::default();
        let seen = Seen { age: clock.arrived(Arrival::First), accessed: true };
        clock.pass_ended(Pass { visited: 1, evicted: 0 });
        assert_eq!(clock.visited(seen), Verdict::Evict);
        clock.pass_ended(Pass { visited: 1, evicted: 1 });
        assert_eq!(clock.visited(seen), Verdict::Keep(seen.age));
    }
}
