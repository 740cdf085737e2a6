//! When to repeat a failed action: after a pause that doubles with each failure, up to a second;
//! sooner when something changed that may help.

/// The first pause, and the longest.
const FIRST_NS: u64 = 1_000_000;
const LONGEST_NS: u64 = 1_000_000_000;
/// The shortest pause after a failure, even if something changes.
const NUDGED_NS: u64 = 10_000_000;

/// Pauses after failures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    pause_ns: u64,
    failed_at_ns: u64,
    until_ns: u64,
}

impl Backoff {
    /// Returns the time of the next attempt; `None` when it has come.
    pub(crate) fn pending(&self, now_ns: u64) -> Option<u64> {
        (now_ns < self.until_ns).then_some(self.until_ns)
    }

    /// Notes a failure, and returns the time of the next attempt.
    pub(crate) fn failed(&mut self, now_ns: u64) -> u64 {
        self.pause_ns = self.pause_ns.saturating_mul(2).clamp(FIRST_NS, LONGEST_NS);
        self.failed_at_ns = now_ns;
        self.until_ns = now_ns.saturating_add(self.pause_ns);
        self.until_ns
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Brings the next attempt forward, as something changed that may help.
    pub(crate) fn nudge(&mut self) {
        self.until_ns = self.until_ns.min(self.failed_at_ns.saturating_add(NUDGED_NS));
    }
}

#[cfg(test)]
mod tests {

    use std::vec::Vec;

    use super::{Backoff, FIRST_NS, LONGEST_NS, NUDGED_NS};

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pending(0), None);
        let pauses: Vec<u64> = (0..12).map(|_| backoff.failed(5) - 5).collect();
        assert_eq!(pauses[..3], [FIRST_NS, 2 * FIRST_NS, 4 * FIRST_NS]);
        assert_eq!(pauses[10..], [LONGEST_NS; 2]);
        assert_eq!(backoff.pending(5), Some(5 + LONGEST_NS));
        backoff.succeeded();
        assert_eq!(backoff.failed(7), 7 + FIRST_NS);
    }

    #[test]
    fn a_nudge_shortens_a_pause_but_does_not_end_it() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.failed(100);
        }
        backoff.nudge();
        assert_eq!((backoff.pending(101), backoff.pending(100 + NUDGED_NS)), (Some(100 + NUDGED_NS), None));
        let mut fresh = Backoff::default();
        fresh.failed(100);
        fresh.nudge();
        assert_eq!(fresh.pending(101), Some(100 + FIRST_NS), "a nudge never lengthens a pause");
    }
}
