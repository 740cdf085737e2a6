//! Conditions that last for a while and may recur. The beginning of an episode is reported, at a
//! limited rate. Pure.
//!
//! A guest can cause some conditions as often as it likes. Every episode is counted; few are
//! reported.

use std::time::Duration;

use crate::clock::Moment;

/// The least time between two reports.
const SPACING: Duration = Duration::from_secs(10);

/// Episodes of one condition.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    is_on: bool,
    count: u64,
    /// Episodes that began since the last report.
    untold: u64,
    last_told: Option<Moment>,
}

impl Episodes {
    /// Records whether the condition holds now. If an episode begins and is to be reported, returns
    /// how many have begun since the last report, this one included.
    pub(super) fn observe(&mut self, goes_on: bool, now: Moment) -> Option<u64> {
        let was_on = std::mem::replace(&mut self.is_on, goes_on);
        if !goes_on || was_on {
            return None;
        }
        self.count += 1;
        self.untold += 1;
        if self.last_told.is_some_and(|told| now.since(told) < SPACING) {
            return None;
        }
        self.last_told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }

    /// Returns the number of episodes so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::Episodes;
    use crate::clock::Moment;

    /// Returns what is reported of samples a tenth of a second apart.
    fn told(episodes: &mut Episodes, polls: impl IntoIterator<Item = bool>) -> Vec<(u64, u64)> {
        let at = |tenth: u64| Moment::from_ns(1 + tenth * 100_000_000);
        let polls = (0..).zip(polls);
        polls.filter_map(|(tenth, goes_on)| Some((tenth, episodes.observe(goes_on, at(tenth))?))).collect()
    }

    #[test]
    fn a_condition_that_lasts_is_reported_once() {
        let mut episodes = Episodes::default();
        assert_eq!(told(&mut episodes, [false, true, true, true, true]), [(1, 1)]);
        assert_eq!(episodes.count(), 1);
    }

    #[test]
    fn a_condition_that_recurs_is_counted_and_reported_at_a_limited_rate() {
        let mut episodes = Episodes::default();
        let polls = (0..250).map(|tenth| tenth % 2 == 0);
        assert_eq!(told(&mut episodes, polls), [(0, 1), (100, 50), (200, 50)]);
        assert_eq!(episodes.count(), 125);
    }
}
