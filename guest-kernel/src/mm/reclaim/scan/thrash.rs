//! Detects thrashing: the guest is busy restoring pages that it has just evicted (Denning,
//! "Thrashing: its causes and prevention", 1968).
//!
//! Pages that are touched soon after their eviction ([`Tally::refaults`]) show that the working set
//! does not fit into memory. A few of them are the price of a policy that guesses. A guest is
//! thrashing when three things are true:
//!
//! * Most of the evicted pages that are touched have been evicted shortly before.
//! * About as many pages are restored as are evicted. A guest whose balloon has deflated restores
//!   pages and evicts none, and a scan of much memory evicts pages that never come back.
//! * Many pages are restored. Pages are counted, not faults: a fault brings neighbours too.
//!
//! Pure: metrics and the moment are passed in.

use crate::time::Instant;

/// The shortest time that is judged.
const WINDOW_NS: u64 = 1_000_000_000;
/// Thrashing begins when all of `BEGIN` is met, and lasts while all of `GO_ON` is.
const BEGIN: Limits = Limits { restores_per_s: 1000, percent: 50 };
const GO_ON: Limits = Limits { restores_per_s: 250, percent: 25 };

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Pages restored.
    restores_per_s: u64,
    /// Refaults in a hundred touches of evicted pages; and of pages restored and pages evicted, the
    /// lesser number in a hundred of the greater.
    percent: u64,
}

/// Evictions and restores since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pages evicted.
    pub(crate) evictions: u64,
    /// Pages restored.
    pub(crate) restores: u64,
    /// Of those, pages that a thread had touched. The others came with them.
    pub(crate) touched_restores: u64,
    /// Of those, pages that had been evicted shortly before.
    pub(crate) refaults: u64,
}

impl Tally {
    pub(super) const ZERO: Self = Self { evictions: 0, restores: 0, touched_restores: 0, refaults: 0 };
}

/// The detector of one guest.
#[derive(Debug)]
pub(super) struct ThrashDetector {
    /// When the window began, and the tally at that moment.
    since: Instant,
    before: Tally,
    is_thrashing: bool,
    episodes: u64,
}

impl ThrashDetector {
    pub(crate) const fn new() -> Self {
        Self { since: Instant::from_nanos(0), before: Tally::ZERO, is_thrashing: false, episodes: 0 }
    }

    /// Returns how often the guest began to thrash.
    pub(crate) fn episodes(&self) -> u64 {
        self.episodes
    }

    /// Returns whether the guest is thrashing. The answer changes at most once a window, and a
    /// window is as long as the time between two calls if that is longer.
    pub(crate) fn observe(&mut self, now: Instant, tally: Tally) -> bool {
        let time = now.since(self.since);
        if time >= WINDOW_NS {
            let limits = if self.is_thrashing { GO_ON } else { BEGIN };
            let is_thrashing = limits.are_met(self.before, tally, time);
            self.episodes += u64::from(is_thrashing && !self.is_thrashing);
            (self.since, self.before, self.is_thrashing) = (now, tally, is_thrashing);
        }
        self.is_thrashing
    }
}

impl Limits {
    fn are_met(&self, before: Tally, after: Tally, time_ns: u64) -> bool {
        let evictions = after.evictions - before.evictions;
        let restores = after.restores - before.restores;
        let touched = after.touched_restores - before.touched_restores;
        let refaults = after.refaults - before.refaults;
        let per_s = u128::from(restores) * 1_000_000_000 / u128::from(time_ns.max(1));
        let is_share = |part: u64, of: u64| part > 0 && part * 100 >= of * self.percent;
        per_s >= u128::from(self.restores_per_s)
            && is_share(refaults, touched)
            && is_share(restores, evictions)
            && is_share(evictions, restores)
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, ThrashDetector};
    use crate::time::Instant;

    /// Plays seconds, each with its evictions, restores, touches of evicted pages and refaults.
    /// Returns the answer after each, and the number of episodes.
    fn played(seconds: &[[u64; 4]]) -> (Vec<bool>, u64) {
        let mut detector = ThrashDetector::new();
        let mut tally = Tally::default();
        let mut said = Vec::new();
        for (second, [evictions, restores, touched, refaults]) in (1..).zip(seconds) {
            tally.evictions += evictions;
            tally.restores += restores;
            tally.touched_restores += touched;
            tally.refaults += refaults;
            said.push(detector.observe(Instant::from_nanos(second * 1_000_000_000), tally));
        }
        (said, detector.episodes())
    }

    #[test]
    fn a_guest_that_restores_what_it_evicts_thrashes() {
        assert_eq!(played(&[[0; 4], [5000, 4800, 4800, 4000], [5000, 5000, 5000, 4900]]), (vec![false, true, true], 1));
        assert_eq!(played(&[[5000, 5000, 400, 350]]), (vec![true], 1), "neighbours are restored too");
    }

    #[test]
    fn a_guest_that_evicts_for_good_does_not_thrash() {
        let quiet = |second| assert_eq!(played(&[second, second]), (vec![false, false], 0), "{second:?}");
        quiet([50_000, 2000, 2000, 1800]); // a scan
        quiet([5000, 5000, 5000, 400]); // a loop over much more than there is
        quiet([999, 999, 999, 999]); // a few
        quiet([10, 5000, 5000, 5000]); // its balloon has deflated
        quiet([0; 4]);
    }

    #[test]
    fn thrashing_lasts_until_it_is_clearly_over() {
        let [much, some] = [[2000, 2000, 2000, 1500], [800, 400, 400, 150]];
        let few = [2000, 2000, 2000, 400];
        let seconds = [some, much, some, few, some, much];
        assert_eq!(played(&seconds), (vec![false, true, true, false, false, true], 2));
        assert_eq!(played(&[much, [240; 4], [0; 4]]), (vec![true, false, false], 1));
    }

    #[test]
    fn a_window_is_judged_when_it_is_full_and_by_its_length() {
        let all = |pages| Tally { evictions: pages, restores: pages, touched_restores: pages, refaults: pages };
        let mut detector = ThrashDetector::new();
        assert!(!detector.observe(Instant::from_nanos(900_000_000), all(9000)));
        assert!(detector.observe(Instant::from_nanos(1_100_000_000), all(9000)));
        assert!(!detector.observe(Instant::from_nanos(61_100_000_000), all(11_000)), "33 a second");
    }
}
