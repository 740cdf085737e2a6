//! The active part of a guest's memory, as the largest of three averages.
//!
//! Source: Waldspurger, OSDI 2002, section 5.3. The latest sample and a fast average follow a guest
//! that wakes; a slow average keeps one that rests for a moment from losing its memory. The largest
//! of them counts, so memory becomes idle slowly and active at once.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::usage::StalledTime;
use crate::clock::Moment;

/// Time constants of the averages.
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(10);
/// The least change of activity that counts at once.
const STEP: f64 = 1.0 / 32.0;
/// The part of a smaller change that counts with each decision, and the change that is noise.
const SMOOTHING: f64 = 1.0 / 16.0;
const NOISE: f64 = 1.0 / 256.0;

/// The active part of what a guest uses, from 0 to 1. It is a part and no count, so that it does
/// not follow from the guest's size: the size follows from it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Activity(f64);

impl Activity {
    /// All is active.
    pub(super) const FULL: Self = Self(1.0);

    /// Returns the activity of a guest that uses `used` frames, of which these are active.
    pub(super) fn of(active: FrameCount, used: FrameCount) -> Self {
        if used == FrameCount::ZERO { Self::FULL } else { Self((active.0 as f64 / used.0 as f64).min(1.0)) }
    }

    /// Returns what the activity would be if no thread had waited for memory. Memory that is not
    /// touched while threads wait for other memory is not idle: a guest that works on more than it
    /// has would seem the idler the longer it waits for its swap disk.
    pub(super) fn without_stalls(self, stalled: StalledTime) -> Self {
        let part = self.0 / stalled.rest();
        // 0 / 0 for a guest that has touched nothing and waits all the time.
        if part.is_nan() { Self::FULL } else { Self(part.min(1.0)) }
    }

    /// Returns the part.
    pub(super) fn part(self) -> f64 {
        self.0
    }

    /// Returns the idle part, in per cent.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 100")]
    pub(super) fn idle_percent(self) -> u8 {
        ((1.0 - self.0) * 100.0).round() as u8
    }

    /// Takes over half of a large change, and a little of a small one: the guest's size follows
    /// from its activity, and samples have errors.
    pub(super) fn follow(&mut self, latest: Self) {
        let change = latest.0 - self.0;
        self.0 += change
            * match change.abs() {
                large if large >= STEP => 0.5,
                small if small >= NOISE => SMOOTHING,
                _ => 0.0,
            };
    }
}

/// The averages of one guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkingSet {
    last: Option<Moment>,
    current: f64,
    fast: f64,
    slow: f64,
}

impl WorkingSet {
    /// Notes the activity at `now`.
    pub(super) fn observe(&mut self, activity: Activity, now: Moment) {
        let value = activity.0;
        self.current = value;
        let Some(last) = self.last.replace(now) else {
            (self.fast, self.slow) = (value, value);
            return;
        };
        let elapsed = now.since(last).as_secs_f64();
        for (average, constant) in [(&mut self.fast, FAST), (&mut self.slow, SLOW)] {
            *average += (value - *average) * (1.0 - (-elapsed / constant.as_secs_f64()).exp());
        }
    }

    /// Returns the estimate.
    pub(super) fn activity(&self) -> Activity {
        Activity(self.current.max(self.fast).max(self.slow).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::{Activity, StalledTime, WorkingSet};
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;

    fn percent(count: u64) -> Activity {
        Activity::of(FrameCount(count), FrameCount(100))
    }

    #[test]
    fn memory_becomes_active_at_once_and_idle_slowly() {
        let mut set = WorkingSet::default();
        let mut idle_after = |active: u64, seconds: u64| {
            set.observe(percent(active), Moment::from_ns(seconds * 1_000_000_000));
            set.activity().idle_percent()
        };
        assert_eq!(idle_after(50, 1), 50);
        assert!((50..57).contains(&idle_after(0, 2)), "one second is a moment");
        assert!(idle_after(0, 12) > 80);
        assert!(idle_after(0, 60) > 99);
        assert_eq!(idle_after(80, 61), 20);
    }

    #[test]
    fn large_changes_count_by_halves_and_small_ones_gradually() {
        let mut noted = Activity::FULL;
        let mut idle_after = |active: u64, times: u32| {
            (0..times).for_each(|_| noted.follow(percent(active)));
            noted.idle_percent()
        };
        assert_eq!([1; 3].map(|times| idle_after(20, times)), [40, 60, 70]);
        assert!((77..80).contains(&idle_after(20, 3)));
        assert!((77..80).contains(&idle_after(20, 1)), "the rest is small");
        assert_eq!(idle_after(20, 100), 80);
    }

    #[test]
    fn the_time_in_which_threads_waited_says_nothing() {
        let idle_with =
            |active, per_mille| percent(active).without_stalls(StalledTime::from_per_mille(per_mille)).idle_percent();
        assert_eq!([idle_with(20, 0), idle_with(20, 500), idle_with(20, 900)], [80, 60, 0]);
        assert_eq!([idle_with(0, 999), idle_with(0, 1000), idle_with(9, 5000)], [100, 0, 0]);
    }

    #[test]
    fn a_guest_that_uses_nothing_is_active() {
        assert_eq!(Activity::of(FrameCount::ZERO, FrameCount::ZERO), Activity::FULL);
        assert_eq!(Activity::of(FrameCount(9), FrameCount(3)), Activity::FULL);
    }
}
