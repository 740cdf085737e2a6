//! How long a thread keeps waiting without progress, in time that the guest ran. Pure.
//!
//! The time stamp counter also runs while the guest does not, because its process was stopped or
//! the host had no processor for it. That time says nothing about what the thread waits for, which
//! may not even have been requested yet. So the thread wakes at short intervals
//! ([`Patience::charge`]), and an interval is charged with at most the length that it was meant to
//! have, however late the thread wakes.
//!
//! A wait begins anew with each progress ([`Patience::observe`]). Progress that leaves the thread
//! no nearer to what it waits for renews it only so often: other threads may take whatever arrives,
//! for ever.

use crate::time::Instant;

/// The longest interval; others are an eighth of the whole.
const LONGEST_INTERVAL_NS: u64 = 20_000_000;
/// How many times the length of a wait may pass until less is missing than ever before.
const IN_VAIN: u64 = 5;

/// The rest of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    total_ns: u64,
    /// What is left until there must be progress.
    left_ns: u64,
    /// What is left until less must be missing.
    left_in_vain_ns: u64,
    /// What was charged so far.
    waited_ns: u64,
    /// When time was last charged.
    last_charge: Option<Instant>,
    /// The last observation, with the least that was missing in any; `None` if progress is not
    /// observed.
    observed: Option<Observation>,
}

/// How near a thread is to what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observation {
    /// How much has moved that may help the thread, counted from any origin.
    pub(crate) moved: u64,
    /// How much the thread still lacks.
    pub(crate) missing: u64,
}

impl Patience {
    /// Returns a wait that lasts this long without progress.
    pub(crate) const fn new(nanoseconds: u64) -> Self {
        Self {
            total_ns: nanoseconds,
            left_ns: nanoseconds,
            left_in_vain_ns: nanoseconds.saturating_mul(IN_VAIN),
            waited_ns: 0,
            last_charge: None,
            observed: None,
        }
    }

    /// Charges the time since the last call. Returns until when to sleep before the next one;
    /// `None` when the wait is over.
    pub(crate) fn charge(&mut self, now: Instant) -> Option<Instant> {
        let elapsed = self.last_charge.map_or(0, |last| now.since(last)).min(self.interval_ns());
        self.last_charge = Some(now);
        self.left_ns = self.left_ns.saturating_sub(elapsed);
        self.left_in_vain_ns = self.left_in_vain_ns.saturating_sub(elapsed);
        self.waited_ns += elapsed;
        let left = self.left_ns.min(self.left_in_vain_ns);
        (left > 0).then(|| now.after(left.min(self.interval_ns())))
    }

    /// Notes how near the thread is to what it waits for. The wait begins anew when less is missing
    /// than ever before, and also, for as long as [`IN_VAIN`] says, when anything has moved.
    pub(crate) fn observe(&mut self, now: Observation) {
        let Some(before) = self.observed.replace(now) else { return };
        if now.missing < before.missing {
            (self.left_ns, self.left_in_vain_ns) = (self.total_ns, self.total_ns.saturating_mul(IN_VAIN));
            return;
        }
        self.observed = Some(Observation { missing: before.missing, ..now });
        if now.moved > before.moved {
            self.left_ns = self.total_ns;
        }
    }

    /// Returns how long the thread has waited.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.waited_ns
    }

    /// Returns whether things moved and none of it helped the thread.
    pub(crate) fn is_in_vain(&self) -> bool {
        self.left_in_vain_ns == 0
    }

    fn interval_ns(&self) -> u64 {
        (self.total_ns / 8).clamp(1, LONGEST_INTERVAL_NS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};

    use super::{IN_VAIN, LONGEST_INTERVAL_NS, Observation, Patience};
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

    fn observation(moved: u64, missing: u64) -> Observation {
        Observation { moved, missing }
    }

    #[test]
    fn progress_renews_it() {
        let mut patience = Patience::new(SECOND);
        let mut now = Instant::from_nanos(0);
        patience.observe(observation(100, 10));
        for step in 1..10 {
            for _ in 0..49 {
                now = patience.charge(now).expect("49 intervals are less than a second");
            }
            patience.observe(observation(100 + step, 10 - step));
        }
        patience.observe(observation(109, 1));
        // The interval up to now is charged.
        let left = SECOND - LONGEST_INTERVAL_NS;
        assert_eq!(wait(&mut patience, now).since(now), left, "what had arrived before is no progress");
        assert!(!patience.is_in_vain());
        assert_eq!(patience.waited_ns(), now.since(Instant::from_nanos(0)) + left);
    }

    /// Waits while something moves in each interval and as much is missing as `missing` says.
    fn wait_while_things_move(patience: &mut Patience, missing: impl Fn(u64) -> u64) -> u64 {
        let mut now = Instant::from_nanos(0);
        for moved in 0.. {
            patience.observe(observation(moved, missing(moved)));
            match patience.charge(now) {
                Some(next) => now = next,
                None => return patience.waited_ns(),
            }
        }
        unreachable!("the numbers are endless")
    }

    #[test]
    fn progress_that_does_not_help_ends_in_time() {
        let mut patience = Patience::new(SECOND);
        assert_eq!(wait_while_things_move(&mut patience, |_| 7), IN_VAIN * SECOND);
        assert!(patience.is_in_vain());
        // What comes is taken again: less is missing at times, and never less than before.
        let mut patience = Patience::new(SECOND);
        assert_eq!(wait_while_things_move(&mut patience, |moved| 5 + moved % 3), IN_VAIN * SECOND);
    }

    #[test]
    fn a_wait_that_comes_nearer_lasts_as_long_as_that_takes() {
        let mut patience = Patience::new(SECOND);
        let steps = 1000; // a step in 200 intervals, 4 s
        let waited = wait_while_things_move(&mut patience, |moved| steps - (moved / 200).min(steps - 1));
        assert!(waited > 3 * steps * SECOND, "it gave up after {waited} ns");
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
