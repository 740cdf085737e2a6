//! How long a thread goes on waiting: so much of the guest's own time without progress. Pure.
//!
//! The time stamp counter also runs while the guest does not: its process was stopped, or the host
//! had no processor for it. That time says nothing about what the guest waits for, which may not
//! even have been asked yet. So a waiter wakes at short intervals ([`Patience::look`]), and an
//! interval costs it no more than it was to last, however late the waiter wakes.

use crate::time::Instant;

/// An interval is an eighth of the whole, but no longer than this.
const LONGEST_INTERVAL_NS: u64 = 20_000_000;

/// What is left of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    total_ns: u64,
    left_ns: u64,
    last_sample: Option<Instant>,
    /// What had arrived at the last look, where something is counted.
    arrived: Option<u64>,
}

impl Patience {
    /// Lasts so long without progress.
    pub(crate) const fn new(nanoseconds: u64) -> Self {
        Self { total_ns: nanoseconds, left_ns: nanoseconds, last_sample: None, arrived: None }
    }

    /// Charges the time since the last look, and returns until when to sleep before the next one;
    /// `None` when patience is at its end.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = self.last_sample.map_or(0, |last| now.since(last));
        self.last_sample = Some(now);
        self.left_ns = self.left_ns.saturating_sub(elapsed.min(self.interval_ns()));
        (self.left_ns > 0).then(|| now.after(self.left_ns.min(self.interval_ns())))
    }

    /// Tells how much of what is waited for has arrived, counted from anywhere: patience begins
    /// anew whenever that grows.
    pub(crate) fn observe(&mut self, arrived: u64) {
        if self.arrived.replace(arrived).is_some_and(|before| before < arrived) {
            self.left_ns = self.total_ns;
        }
    }

    /// Whether it is at its end.
    pub(crate) fn is_over(&self) -> bool {
        self.left_ns == 0
    }

    fn interval_ns(&self) -> u64 {
        (self.total_ns / 8).clamp(1, LONGEST_INTERVAL_NS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    use super::{LONGEST_INTERVAL_NS, Patience};
    use crate::time::Instant;

    const SECOND: u64 = 1_000_000_000;

    /// Looks whenever it is told to; returns when it gave up.
    fn wait(patience: &mut Patience, mut now: Instant) -> Instant {
        while let Some(next) = patience.look(now) {
            now = next;
        }
        now
    }

    #[test]
    fn a_guest_that_runs_waits_as_long_as_it_was_told() {
        for total in [1, 7, 20_000_000, 2 * SECOND] {
            assert_eq!(wait(&mut Patience::new(total), Instant::from_nanos(5)), Instant::from_nanos(5 + total));
        }
        assert_eq!(Patience::new(0).look(Instant::from_nanos(1)), None);
    }

    #[test]
    fn a_pause_costs_one_interval() {
        let mut patience = Patience::new(2 * SECOND);
        let next = patience.look(Instant::from_nanos(0)).expect("it has just begun");
        assert_eq!(next, Instant::from_nanos(LONGEST_INTERVAL_NS));
        let resumed = next.after(3600 * SECOND);
        assert!(patience.look(resumed).is_some());
        let end = wait(&mut patience, resumed);
        assert_eq!(end.since(resumed), 2 * SECOND - LONGEST_INTERVAL_NS);
    }

    #[test]
    fn progress_renews_it() {
        let mut patience = Patience::new(SECOND);
        let mut now = Instant::from_nanos(0);
        patience.observe(100);
        for arrived in 101..110 {
            for _ in 0..49 {
                now = patience.look(now).expect("49 intervals are less than a second");
            }
            patience.observe(arrived);
        }
        patience.observe(109);
        // The interval up to now is charged.
        let left = SECOND - LONGEST_INTERVAL_NS;
        assert_eq!(wait(&mut patience, now).since(now), left, "what has arrived before is no progress");
        assert!(patience.is_over());
    }

    proptest! {
        #[test]
        fn it_ends_however_late_the_waiter_wakes(total in 1..3 * SECOND, late in vec(0..5 * SECOND, 500)) {
            let mut patience = Patience::new(total);
            let (mut now, mut ran) = (Instant::from_nanos(0), 0);
            for late in late {
                let Some(next) = patience.look(now) else { break };
                ran += next.since(now);
                now = next.after(late);
            }
            prop_assert!(patience.look(now).is_none() || ran < total);
            prop_assert!(ran <= total);
        }
    }
}
