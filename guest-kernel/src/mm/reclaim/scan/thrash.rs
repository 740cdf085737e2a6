//! Thrashing: the guest is busy bringing back what it has just evicted (Denning, "Thrashing: its
//! causes and prevention", 1968).
//!
//! Pages that are touched soon after they left
//! ([`ReclaimStatistics::refaults`](crate::mm::reclaim::ReclaimStatistics)) tell of a working set
//! that does not fit. A few are the price of a policy that guesses. It is thrashing when most of
//! what is touched has just been evicted, when as much comes back as leaves (a guest that takes
//! back what it had given up evicts nothing meanwhile, and what a scan leaves behind never comes
//! back), and when that is much. How much is counted in pages: a fault brings neighbours along.
//! Pure: metrics and the moment are passed in.

use crate::time::Instant;

/// How long is looked at, at least.
const WINDOW_NS: u64 = 1_000_000_000;
/// From which on it is thrashing, and until it is below any of which that goes on.
const BEGIN: Limits = Limits { restores_per_s: 1000, percent: 50 };
const GO_ON: Limits = Limits { restores_per_s: 250, percent: 25 };

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Pages that come back.
    restores_per_s: u64,
    /// Refaults among a hundred touches of evicted pages; and of pages that come and go, the fewer
    /// in a hundred of the others.
    percent: u64,
}

/// What has happened since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Pages evicted.
    pub(crate) evictions: u64,
    /// Pages that came back.
    pub(crate) restores: u64,
    /// Of those, pages that somebody had touched.
    pub(crate) touched_restores: u64,
    /// Of those, pages that had left shortly before.
    pub(crate) refaults: u64,
}

/// Decides whether a guest thrashes.
#[derive(Debug)]
pub(crate) struct ThrashDetector {
    /// When the window began, and what had happened until then.
    since: Instant,
    before: Tally,
    is_thrashing: bool,
    episodes: u64,
}

impl ThrashDetector {
    pub(crate) const fn new() -> Self {
        let before = Tally { evictions: 0, restores: 0, touched_restores: 0, refaults: 0 };
        Self { since: Instant::from_nanos(0), before, is_thrashing: false, episodes: 0 }
    }

    /// Times that the guest began to thrash.
    pub(crate) fn episodes(&self) -> u64 {
        self.episodes
    }

    /// Looks at the metrics, which changes the answer once a window at most. Where nobody looked
    /// for long, the window is as long.
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

    /// Plays seconds, each with its evictions, restores, touches of evicted pages and refaults;
    /// returns what was said after each, and how often it began.
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
    fn a_guest_that_brings_back_what_it_evicts_thrashes() {
        assert_eq!(played(&[[0; 4], [5000, 4800, 4800, 4000], [5000, 5000, 5000, 4900]]), (vec![false, true, true], 1));
        assert_eq!(played(&[[5000, 5000, 400, 350]]), (vec![true], 1), "neighbours come along");
    }

    #[test]
    fn a_guest_whose_evictions_are_not_regretted_does_not() {
        let quiet = |second| assert_eq!(played(&[second, second]), (vec![false, false], 0), "{second:?}");
        quiet([50_000, 2000, 2000, 1800]); // a scan
        quiet([5000, 5000, 5000, 400]); // a loop over much more than there is
        quiet([999, 999, 999, 999]); // a few
        quiet([10, 5000, 5000, 5000]); // it takes back what it had given up
        quiet([0; 4]);
    }

    #[test]
    fn what_has_begun_goes_on_until_it_is_clearly_over() {
        let [much, some] = [[2000, 2000, 2000, 1500], [800, 400, 400, 150]];
        let few = [2000, 2000, 2000, 400];
        let seconds = [some, much, some, few, some, much];
        assert_eq!(played(&seconds), (vec![false, true, true, false, false, true], 2));
        assert_eq!(played(&[much, [240; 4], [0; 4]]), (vec![true, false, false], 1));
    }

    #[test]
    fn nothing_is_said_before_a_window_is_full_and_a_long_one_counts_by_its_length() {
        let all = |pages| Tally { evictions: pages, restores: pages, touched_restores: pages, refaults: pages };
        let mut detector = ThrashDetector::new();
        assert!(!detector.observe(Instant::from_nanos(900_000_000), all(9000)));
        assert!(detector.observe(Instant::from_nanos(1_100_000_000), all(9000)));
        assert!(!detector.observe(Instant::from_nanos(61_100_000_000), all(11_000)), "33 a second");
    }
}
