//! How long a thread keeps waiting without progress, in time that the guest ran. Pure.
//!
//! The time stamp counter also runs while the guest does not, because its process was stopped or
//! the host had no processor for it. That time says nothing about what the thread waits for, which
//! may not even have been requested yet. So the thread wakes at short intervals
//! ([`Patience::charge`]), and an interval is charged with at most the length that it was meant to
//! have, however late the thread wakes.

use crate::time::Instant;

/// The longest interval; others are an eighth of the whole.
const LONGEST_INTERVAL_NS: u64 = 20_000_000;

/// The rest of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    total_ns: u64,
    left_ns: u64,
    /// When time was last charged.
    last_charge: Option<Instant>,
    /// How much had arrived at the last observation, if progress is observed.
    arrived: Option<u64>,
}

impl Patience {
    /// Returns a wait that lasts this long without progress.
    pub(crate) const fn new(nanoseconds: u64) -> Self {
        Self { total_ns: nanoseconds, left_ns: nanoseconds, last_charge: None, arrived: None }
    }

    /// Charges the time since the last call. Returns until when to sleep before the next one;
    /// `None` when the wait is over.
    pub(crate) fn charge(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = self.last_charge.map_or(0, |last| now.since(last));
        self.last_charge = Some(now);
        self.left_ns = self.left_ns.saturating_sub(elapsed.min(self.interval_ns()));
        (self.left_ns > 0).then(|| now.after(self.left_ns.min(self.interval_ns())))
    }

    /// Notes how much of what the thread waits for has arrived, counted from any origin. The wait
    /// begins anew whenever that grows.
    pub(crate) fn observe(&mut self, arrived: u64) {
        if self.arrived.replace(arrived).is_some_and(|before| before < arrived) {
            self.left_ns = self.total_ns;
        }
    }

    /// Returns whether the wait is over.
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

    /// Charges at each moment that it is told. Returns when the wait is over.
    fn wait(patience: &mut Patience, mut now: Instant) -> Instant {
        while let Some(next) = patience.charge(now) {
            now = next;
        }
        now
    }

    #[test]
    fn a_guest_that_runs_waits_for_the_whole_time() {
        for total in [1, 7, 20_000_000, 2 * SECOND] {
            assert_eq!(wait(&mut Patience::new(total), Instant::from_nanos(5)), Instant::from_nanos(5 + total));
        }
        assert_eq!(Patience::new(0).charge(Instant::from_nanos(1)), None);
    }

    #[test]
    fn a_pause_costs_one_interval() {
        let mut patience = Patience::new(2 * SECOND);
        let next = patience.charge(Instant::from_nanos(0)).expect("it has just begun");
        assert_eq!(next, Instant::from_nanos(LONGEST_INTERVAL_NS));
        let resumed = next.after(3600 * SECOND);
        assert!(patience.charge(resumed).is_some());
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
                now = patience.charge(now).expect("49 intervals are less than a second");
            }
            patience.observe(arrived);
        }
        patience.observe(109);
        // The interval up to now is charged.
        let left = SECOND - LONGEST_INTERVAL_NS;
        assert_eq!(wait(&mut patience, now).since(now), left, "what had arrived before is no progress");
        assert!(patience.is_over());
    }

    proptest! {
        #[test]
        fn it_ends_however_late_the_thread_wakes(total in 1..3 * SECOND, late in vec(0..5 * SECOND, 500)) {
            let mut patience = Patience::new(total);
            let (mut now, mut ran) = (Instant::from_nanos(0), 0);
            for late in late {
                let Some(next) = patience.charge(now) else { break };
                ran += next.since(now);
                now = next.after(late);
            }
            prop_assert!(patience.charge(now).is_none() || ran < total);
            prop_assert!(ran <= total);
        }
    }
}
