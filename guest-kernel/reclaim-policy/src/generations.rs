//! Generations: pages that have proved themselves outlive many passes of the hand, newcomers one;
//! how many is measured by regret.
//!
//! A page is in a *generation*, 0 the oldest. A visit that finds it touched makes it young again,
//! any other moves it one generation on, and out of generation 0 it goes. What makes the difference
//! is where pages begin and how young a touch makes them, the *trust*:
//!
//! * **Earned**: newcomers begin in generation 0; a page that is touched again before the hand
//!   returns goes to the youngest. So a scan passes through a few frames and leaves the rest alone.
//!   One in a few pages that come back begins younger, so that of a loop larger than memory a part
//!   settles and stays, and is found by the loop each time it comes round.
//! * **Given**: all pages get the same two generations, newcomers too: CLOCK with one more chance.
//!   It forgets what was hot as fast as it learns what is, and that is right when the working set
//!   moves.
//!
//! Neither is right always, and which one is can be measured. An eviction is *regretted* when the
//! page comes back before as many others were evicted as are resident. Among pages that were never
//! touched again (unproven) and pages that were (proven), the share of regretted evictions should
//! be alike. If evictions of the unproven are regretted far more often, the proven are dead weight,
//! and trust is given; if not, it is earned. On a loop both are regretted alike; on a scan the
//! unproven never are.
//!
//! Sources: ages by accessed bits and insertion at a far age: RRIP, A. Jaleel et al., ISCA 2010,
//! and for one newcomer in a few DIP, M. Qureshi et al., ISCA 2007. Generations, and refaults of
//! one group held against another's: Linux, multi-gen LRU (Documentation/mm/multigen_lru.rst).
//! Refault distance: Linux, mm/workingset.c.
//!
//! Why not CLOCK-Pro, LIRS or ARC: they remember as many absent pages as resident ones, in lists.
//! Here an absent page costs what its swap slot holds anyway, and a resident one a byte.

use crate::policy::{Age, Arrival, Pass, Policy, Refault, Seen, Verdict};

/// The youngest generation.
const YOUNGEST: u8 = 7;
/// The youngest generation while trust is given.
const YOUNGEST_GIVEN: u8 = 1;
/// Where a settler begins, while trust is earned, whose eviction is regretted; one that comes back
/// later begins in the youngest generation, since the loop that it belongs to takes longer to come
/// round.
const SETTLER: u8 = 3;
/// One page in so many that come back is a settler.
const SETTLER_EVERY: u8 = 8;
/// A page that comes back after more than so many times as many evictions as pages are resident is
/// no settler, but new.
const SETTLER_REACH: u64 = 4;
/// How many times more often evictions of unproven pages must be regretted than those of proven
/// ones for trust to be given.
const TRUST_RATIO: u64 = 2;
/// One eviction for so many resident pages is assumed of each kind before any is counted, so that a
/// few mean little.
const PAGES_PER_ASSUMED: u64 = 128;
/// Passes without a victim after which touches don't count.
const OVERRUN_PASSES: u32 = 3;

/// The policy.
#[derive(Clone, Debug)]
pub struct Generations {
    trust: Trust,
    unproven: Evictions,
    proven: Evictions,
    /// Pages that came back since the last settler.
    since_settler: u8,
    /// How many generations an untouched page moves on: more than one where a pass found the oldest
    /// ones empty.
    stride: u8,
    /// The oldest generation of the pages kept in this pass.
    oldest: u8,
    /// Passes in a row that found no victim.
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
            // A first visit can't tell the touch that brought the page in from a later one, and
            // says nothing.
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

    fn pass_ended(&mut self, pass: Pass) {
        self.fruitless = if pass.evicted == 0 { self.fruitless.saturating_add(1) } else { 0 };
        // Passes that would find nothing but move every page on are gone through at once.
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
            Trust::Ballooned => YOUNGEST_GIVEN,
        }
    }

    /// Where a page begins of which nothing is known.
    fn newcomer(&self) -> u8 {
        match self.trust {
            Trust::Earned => 0,
            Trust::Ballooned => YOUNGEST_GIVEN,
        }
    }

    /// Where a page begins that has come back.
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

    /// A page that was not touched: a generation on, if there is one.
    fn aged(&self, page: Page) -> Option<Page> {
        let generation = page.generation.min(self.youngest()).checked_sub(self.stride)?;
        Some(Page { generation, ..page })
    }

    fn count_eviction(&mut self, history: History) {
        match history {
            History::Proven => self.proven.made += 1,
            History::Unproven | History::Fresh => self.unproven.made += 1,
            // Nobody asked for it, so it tells nothing about what programs do.
            History::Untouched => {}
        }
    }

    /// Chooses the trust by the shares of regretted evictions; between the two bounds it stays as
    /// it is. As many evictions as `assumed` count besides those made: of proven pages as
    /// regretted, of unproven ones as not, so nothing is given up for a guess.
    fn weigh(&mut self, assumed: u64) {
        let (unproven, proven) = (&self.unproven, &self.proven);
        // Shares compared crosswise: regretted / made against regretted / made.
        let ours = unproven.regretted.saturating_mul(proven.made + assumed);
        let theirs = (proven.regretted + assumed).saturating_mul(unproven.made + assumed);
        if ours > TRUST_RATIO.saturating_mul(theirs) {
            self.trust = Trust::Ballooned;
        } else if ours.saturating_mul(2) < theirs.saturating_mul(TRUST_RATIO + 1) {
            self.trust = Trust::Earned;
        }
    }
}

/// Whether a page has to prove itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Earned,
    Ballooned,
}

/// Evictions of one kind of pages, older ones counting less.
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
    /// Touched on arrival; the hand has not come by yet.
    Fresh,
    /// Not touched since it came.
    Unproven,
    /// Found touched by a later visit.
    Proven,
    /// Brought in beside another page, and not touched since.
    Untouched,
}

/// A age, taken apart: the generation in the lower three bits, the history above.
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
