//! The active part of a guest's memory, as the largest of three averages.
//!
//! Source: Waldspurger, OSDI 2002, section 5.3. The latest sample and a fast average follow a guest
//! that wakes; a slow average keeps one that rests for a moment from losing its memory. The largest
//! of them counts, so memory becomes idle slowly and active at once.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;

/// Time constants of the averages.
const FAST: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(10);

/// The averages of one guest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WorkingSet {
    last: Option<Moment>,
    current: f64,
    fast: f64,
    slow: f64,
}

impl WorkingSet {
    /// Notes that `active` frames are active at `now`.
    pub(super) fn observe(&mut self, active: FrameCount, now: Moment) {
        let value = active.0 as f64;
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
    #[allow(clippy::cast_possible_truncation, reason = "an average of frame counts is one, and a cast saturates")]
    pub(super) fn active(&self) -> FrameCount {
        FrameCount(self.current.max(self.fast).max(self.slow).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::WorkingSet;
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;

    #[test]
    fn memory_becomes_active_at_once_and_idle_slowly() {
        let mut set = WorkingSet::default();
        let mut active_after = |count: u64, seconds: u64| {
            set.observe(FrameCount(count), Moment::from_ns(seconds * 1_000_000_000));
            set.active().0
        };
        assert_eq!(active_after(1000, 1), 1000);
        assert!((900..1000).contains(&active_after(0, 2)), "one second is a moment");
        assert!(active_after(0, 12) < 400);
        assert!(active_after(0, 60) < 10);
        assert_eq!(active_after(5000, 61), 5000);
    }
}
