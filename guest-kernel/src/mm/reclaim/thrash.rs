//! Thrashing: the guest is busy bringing back what it has just evicted (Denning, "Thrashing: its causes and prevention", 1968).
//!
//! Pages that come back soon after they left ([`ReclaimStatistics::refaults`](super::ReclaimStatistics)) tell of a working set that does
//! not fit. A few are the price of a policy that guesses. Many, and many beside what is evicted, mean that every eviction takes a
//! page that is needed; a guest that merely takes back what it had given up evicts nothing meanwhile. Pure: figures and the moment
//! are passed in.

use crate::time::Instant;

/// How long is looked at, at least.
const WINDOW_NS: u64 = 1_000_000_000;
/// Refaults per second from which on it is thrashing, if so many of a hundred evictions were in vain.
const BEGIN: Limits = Limits { refaults_per_s: 1000, percent: 50 };
/// It goes on until they are below either of these.
const GO_ON: Limits = Limits { refaults_per_s: 250, percent: 25 };

#[derive(Clone, Copy, Debug)]
struct Limits {
    refaults_per_s: u64,
    percent: u64,
}

/// What has happened since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Pages evicted.
    pub(super) evictions: u64,
    /// Pages that came back soon after.
    pub(super) refaults: u64,
}

/// Decides whether a guest thrashes.
#[derive(Debug)]
pub(super) struct ThrashDetector {
    /// When the window began, and what had happened until then.
    since: Instant,
    before: Tally,
    is_thrashing: bool,
    episodes: u64,
}

impl ThrashDetector {
    pub(super) const fn new() -> Self {
        let before = Tally { evictions: 0, refaults: 0 };
        Self { since: Instant::from_nanos(0), before, is_thrashing: false, episodes: 0 }
    }

    /// Times that the guest began to thrash.
    pub(super) fn episodes(&self) -> u64 {
        self.episodes
    }

    /// Looks at the figures, which changes the answer once a window at most. Where nobody looked for long, the window is as long.
    pub(super) fn observe(&mut self, now: Instant, tally: Tally) -> bool {
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
        let refaults = after.refaults - before.refaults;
        let evictions = after.evictions - before.evictions;
        let per_s = u128::from(refaults) * 1_000_000_000 / u128::from(time_ns.max(1));
        let is_much = per_s >= u128::from(self.refaults_per_s);
        is_much
            && evictions > 0
            && refaults * 100 >= evictions * self.percent
            && evictions * 100 >= refaults * self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::{Tally, ThrashDetector};
    use crate::time::Instant;

    /// Plays seconds, each with its evictions and refaults; returns what was said after each.
    fn played(seconds: &[(u64, u64)]) -> (Vec<bool>, u64) {
        let mut detector = ThrashDetector::new();
        let mut tally = Tally::default();
        let mut said = Vec::new();
        for (second, (evictions, refaults)) in (1..).zip(seconds) {
            tally = Tally { evictions: tally.evictions + evictions, refaults: tally.refaults + refaults };
            said.push(detector.observe(Instant::from_nanos(second * 1_000_000_000), tally));
        }
        (said, detector.episodes())
    }

    #[test]
    fn a_guest_that_brings_back_what_it_evicts_thrashes() {
        assert_eq!(played(&[(0, 0), (5000, 4000), (5000, 4900)]), (vec![false, true, true], 1));
    }

    #[test]
    fn a_guest_whose_evictions_are_not_regretted_does_not() {
        assert_eq!(played(&[(50_000, 2000), (50_000, 20_000)]), (vec![false, false], 0), "a scan");
        assert_eq!(played(&[(900, 900), (999, 999)]), (vec![false, false], 0), "a few");
        assert_eq!(played(&[(0, 5000), (10, 5000)]), (vec![false, false], 0), "it takes back what it had given up");
    }

    #[test]
    fn what_has_begun_goes_on_until_it_is_clearly_over() {
        let seconds = [(2000, 1500), (800, 400), (2000, 600), (2000, 400), (2000, 600), (2000, 1500)];
        assert_eq!(played(&seconds), (vec![true, true, true, false, false, true], 2));
        assert_eq!(played(&[(2000, 1500), (240, 240), (0, 0)]), (vec![true, false, false], 1));
    }

    #[test]
    fn nothing_is_said_before_a_window_is_full_and_a_long_one_counts_by_its_length() {
        let mut detector = ThrashDetector::new();
        let tally = Tally { evictions: 9000, refaults: 9000 };
        assert!(!detector.observe(Instant::from_nanos(900_000_000), tally));
        assert!(detector.observe(Instant::from_nanos(1_100_000_000), tally));
        let later = Tally { evictions: 11_000, refaults: 11_000 };
        assert!(!detector.observe(Instant::from_nanos(61_100_000_000), later), "33 a second");
    }
}
