//! Generations: pages that have been touched again survive many passes of the hand, new pages one.
//! How many follows from the evictions that are regretted.
//!
//! A page is in a *generation*, of which 0 is the oldest. A visit that finds it touched makes it
//! young again, any other visit moves it one generation on, and from generation 0 it is evicted.
//! The *trust* decides in which generation pages begin, and how young a touch makes them:
//!
//! * **Earned**: new pages begin in generation 0. A page that is touched again before the hand
//!   returns moves to the youngest generation. So a program's scan passes through a few frames and
//!   leaves the rest alone. One in a few pages that come back begins younger: a part of a loop that
//!   is larger than memory stays, and the loop finds it each time.
//! * **Given**: all pages get the same two generations, new ones too. This is CLOCK with one more
//!   chance. It forgets what was hot as fast as it learns what is hot now, which is right when the
//!   working set moves.
//!
//! Neither is always right, and the policy measures which one is. An eviction is *regretted* when
//! the page comes back before as many others were evicted as are resident. The share of regretted
//! evictions should be the same for pages that were touched again (proven) and pages that were not
//! (unproven). If evictions of unproven pages are regretted far more often, the proven pages are
//! dead weight, and trust is given. Otherwise it is earned. On a loop both shares are alike; on a
//! scan no eviction of an unproven page is regretted.
//!
//! Sources: ages by accessed bits and insertion at a high age: RRIP, A. Jaleel et al., ISCA 2010,
//! and for one new page in a few DIP, M. Qureshi et al., ISCA 2007. Generations, and refaults of
//! one group held against another's: Linux, multi-gen LRU (Documentation/mm/multigen_lru.rst).
//! Refault distance: Linux, mm/workingset.c.
//!
//! CLOCK-Pro, LIRS and ARC remember as many absent pages as resident ones, in lists. Here an absent
//! page needs only its swap entry, and a resident page a byte.

use crate::policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};

/// The youngest generation.
const YOUNGEST: u8 = 7;
/// The youngest generation while trust is given.
const YOUNGEST_GIVEN: u8 = 1;
/// The generation in which a settler begins, while trust is earned, if its eviction is regretted.
/// One that comes back later begins in the youngest generation, since it belongs to a longer loop.
const SETTLER: u8 = 3;
/// Of that many pages that come back, one is a settler.
const SETTLER_EVERY: u8 = 8;
/// A page that comes back after more evictions than resident pages times this is new, not a
/// settler.
const SETTLER_REACH: u64 = 4;
/// How many times more often evictions of unproven pages must be regretted than those of proven
/// ones for trust to be given.
const TRUST_RATIO: u64 = 2;
/// For that many resident pages, one eviction of each kind is assumed before any is counted, so
/// that a few evictions decide nothing.
const PAGES_PER_ASSUMED: u64 = 128;
/// Passes without an eviction after which touches do not count.
const OVERRUN_PASSES: u32 = 3;

/// The policy.
#[derive(Clone, Debug)]
pub struct Generations {
    trust: Trust,
    unproven: Evictions,
    proven: Evictions,
    /// Pages that came back since the last settler.
    since_settler: u8,
    /// How many generations a visit moves an untouched page on: more than one after a pass that
    /// found the oldest generations empty.
    stride: u8,
    /// The oldest generation of the pages kept in this pass.
    oldest: u8,
    /// Passes in a row without an eviction.
    fruitless: u32,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            trust: Trust::Earned,
            unproven: Evictions::default(),
            proven: Evictions::default(),
            since_settler: 0,
            stride: 1,
            oldest: YOUNGEST,
            fruitless: 0,
        }
    }
}

impl Policy for Generations {
    const PASSES: u32 = OVERRUN_PASSES + 2;

    fn arrived(&mut self, how: Arrival) -> Age {
        let (history, generation) = match how {
            Arrival::Prefetch => (History::Untouched, 0),
            Arrival::First => (History::Fresh, self.newcomer()),
            Arrival::Refault(refault) => (History::Fresh, self.returned(&refault)),
        };
        Page { history, generation }.encode()
    }

    fn visited(&mut self, seen: Seen) -> Verdict {
        let page = Page::decode(seen.age);
        let touched = seen.accessed && self.fruitless < OVERRUN_PASSES;
        let next = match (page.history, touched) {
            // The first visit can't tell the touch that brought the page in from a later one.
            (History::Fresh, _) => Some(Page { history: History::Unproven, ..page }),
            (History::Untouched, true) => Some(Page { history: History::Unproven, generation: self.newcomer() }),
            (History::Untouched, false) => None,
            (_, true) => Some(Page { history: History::Proven, generation: self.youngest() }),
            (_, false) => self.aged(page),
        };
        match next {
            Some(page) => {
                self.oldest = self.oldest.min(page.generation);
                Verdict::Keep(page.encode())
            }
            None => {
                self.count_eviction(page.history);
                Verdict::Evict
            }
        }
    }

    fn is_new(&self, page: Seen) -> bool {
        match Page::decode(page.age).history {
            History::Fresh => true,
            History::Untouched => page.accessed && self.fruitless < OVERRUN_PASSES,
            History::Unproven | History::Proven => false,
        }
    }

    fn pass_ended(&mut self, pass: Pass) {
        self.fruitless = if pass.evicted == 0 { self.fruitless.saturating_add(1) } else { 0 };
        // Passes that would evict nothing but only move every page on are done at once.
        self.stride = if pass.evicted == 0 { self.oldest + 1 } else { 1 };
        self.oldest = YOUNGEST;
        if self.unproven.made + self.proven.made > pass.visited / 2 {
            self.unproven.fade();
            self.proven.fade();
        }
    }

    fn age(&self, age: Age) -> u8 {
        self.youngest().saturating_sub(Page::decode(age).generation)
    }
}

impl Generations {
    fn youngest(&self) -> u8 {
        match self.trust {
            Trust::Earned => YOUNGEST,
            Trust::Given => YOUNGEST_GIVEN,
        }
    }

    /// Returns the generation in which a page begins of which nothing is known.
    fn newcomer(&self) -> u8 {
        match self.trust {
            Trust::Earned => 0,
            Trust::Given => YOUNGEST_GIVEN,
        }
    }

    /// Returns the generation in which a page begins that has come back.
    fn returned(&mut self, refault: &Refault) -> u8 {
        if refault.distance <= refault.resident {
            self.regret(refault);
        }
        if refault.distance > refault.resident.saturating_mul(SETTLER_REACH) {
            return self.newcomer();
        }
        self.since_settler += 1;
        if self.since_settler < SETTLER_EVERY {
            return self.newcomer();
        }
        self.since_settler = 0;
        let settler = if refault.distance <= refault.resident { SETTLER } else { YOUNGEST };
        self.youngest().min(settler)
    }

    fn regret(&mut self, refault: &Refault) {
        match Page::decode(refault.age).history {
            History::Proven => self.proven.regretted += 1,
            _ => self.unproven.regretted += 1,
        }
        self.weigh(refault.resident / PAGES_PER_ASSUMED + 1);
    }

    /// Moves a page on that was not touched. Returns `None` when it is to be evicted.
    fn aged(&self, page: Page) -> Option<Page> {
        let generation = page.generation.min(self.youngest()).checked_sub(self.stride)?;
        Some(Page { generation, ..page })
    }

    fn count_eviction(&mut self, history: History) {
        match history {
            History::Proven => self.proven.made += 1,
            History::Unproven | History::Fresh => self.unproven.made += 1,
            // No thread has asked for it, so it says nothing about what programs do.
            History::Untouched => {}
        }
    }

    /// Chooses the trust by the shares of regretted evictions. Between the two bounds it stays as
    /// it is. `assumed` evictions of each kind count besides those made: of proven pages as
    /// regretted, of unproven pages as not regretted, so that a guess changes nothing.
    fn weigh(&mut self, assumed: u64) {
        let (unproven, proven) = (&self.unproven, &self.proven);
        // Compares regretted / made of both kinds, without a division.
        let ours = unproven.regretted.saturating_mul(proven.made + assumed);
        let theirs = (proven.regretted + assumed).saturating_mul(unproven.made + assumed);
        if ours > TRUST_RATIO.saturating_mul(theirs) {
            self.trust = Trust::Given;
        } else if ours.saturating_mul(2) < theirs.saturating_mul(TRUST_RATIO + 1) {
            self.trust = Trust::Earned;
        }
    }
}

/// Whether a page must be touched again to become young.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Earned,
    Given,
}

/// Evictions of one kind of pages. Older ones count less.
#[derive(Clone, Debug, Default)]
struct Evictions {
    made: u64,
    regretted: u64,
}

impl Evictions {
    fn fade(&mut self) {
        self.made /= 2;
        self.regretted /= 2;
    }
}

/// What is known of a page's use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    /// Touched on arrival, and not visited yet.
    Fresh,
    /// Visited, and not touched since it arrived.
    Unproven,
    /// Found touched by a later visit.
    Proven,
    /// It came with another page, and has not been touched since.
    Untouched,
}

/// An age, decoded: the generation is in the lower three bits, the history above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    history: History,
    generation: u8,
}

impl Page {
    const GENERATION_BITS: u32 = 3;

    fn encode(self) -> Age {
        let history = match self.history {
            History::Fresh => 0,
            History::Unproven => 1,
            History::Proven => 2,
            History::Untouched => 3,
        };
        Age(history << Self::GENERATION_BITS | self.generation)
    }

    fn decode(age: Age) -> Self {
        let history = match age.0 >> Self::GENERATION_BITS & 3 {
            0 => History::Fresh,
            1 => History::Unproven,
            2 => History::Proven,
            _ => History::Untouched,
        };
        Self { history, generation: age.0 & YOUNGEST }
    }
}

const _: () = assert!(YOUNGEST == (1 << Page::GENERATION_BITS) - 1, "generations fill their bits");

#[cfg(test)]
mod tests;
