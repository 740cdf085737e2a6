//! When to try again what has failed: after twice as long each time, up to a second; soon, when
//! something has changed that may help.

/// The first pause, and the longest.
const FIRST_NS: u64 = 1_000_000;
const LONGEST_NS: u64 = 1_000_000_000;
/// The shortest pause after a failure, whatever changes.
const NUDGED_NS: u64 = 10_000_000;

/// Pauses after failures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    pause_ns: u64,
    failed_at_ns: u64,
    until_ns: u64,
}

impl Backoff {
    /// The moment before which there is no point in trying; `None` when it has come.
    pub(crate) fn pending(&self, now_ns: u64) -> Option<u64> {
        (now_ns < self.until_ns).then_some(self.until_ns)
    }

    /// It failed; says when to try again.
    pub(crate) fn failed(&mut self, now_ns: u64) -> u64 {
        self.pause_ns = self.pause_ns.saturating_mul(2).clamp(FIRST_NS, LONGEST_NS);
        self.failed_at_ns = now_ns;
        self.until_ns = now_ns.saturating_add(self.pause_ns);
        self.until_ns
    }

    /// It worked.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Something has changed: it may work now.
    pub(crate) fn nudge(&mut self) {
        self.until_ns = self.until_ns.min(self.failed_at_ns.saturating_add(NUDGED_NS));
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

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
    fn a_nudge_helps_soon_but_not_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.failed(100);
        }
        backoff.nudge();
        assert_eq!((backoff.pending(101), backoff.pending(100 + NUDGED_NS)), (Some(100 + NUDGED_NS), None));
        let mut fresh = Backoff::default();
        fresh.failed(100);
        fresh.nudge();
        assert_eq!(fresh.pending(101), Some(100 + FIRST_NS), "it makes nothing later");
    }
}
