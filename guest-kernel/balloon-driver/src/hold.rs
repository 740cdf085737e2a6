//! How long nothing is taken from a guest in which somebody waits for memory: for a while after
//! that, but not for ever. Somebody who wants more than there is would otherwise keep the host from
//! giving what lies idle to others; so a host that insists has its turn, too.

/// After somebody has waited.
const HOLD_NS: u64 = 200_000_000;
/// At most, and how long nothing is held back after so long a hold.
const LONGEST_NS: u64 = 1_000_000_000;

/// A hold, or the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    since_ns: u64,
    until_ns: u64,
}

impl Hold {
    /// Somebody waits for memory.
    pub(crate) fn extend(&mut self, now_ns: u64) {
        if now_ns >= self.until_ns {
            let was_longest = self.until_ns.saturating_sub(self.since_ns) == LONGEST_NS;
            if was_longest && now_ns < self.until_ns.saturating_add(LONGEST_NS) {
                return;
            }
            self.since_ns = now_ns;
        }
        self.until_ns = now_ns.saturating_add(HOLD_NS).min(self.since_ns.saturating_add(LONGEST_NS));
    }

    /// When the hold ends; `None` when there is none.
    pub(crate) fn pending(&self, now_ns: u64) -> Option<u64> {
        (now_ns < self.until_ns).then_some(self.until_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::{HOLD_NS, Hold, LONGEST_NS};

    #[test]
    fn it_outlasts_the_wait_by_a_while() {
        let mut hold = Hold::default();
        assert_eq!(hold.pending(0), None);
        hold.extend(5);
        hold.extend(10);
        assert_eq!((hold.pending(10), hold.pending(10 + HOLD_NS)), (Some(10 + HOLD_NS), None));
        hold.extend(10 + HOLD_NS);
        assert_eq!(hold.pending(10 + HOLD_NS), Some(10 + 2 * HOLD_NS), "and begins again");
    }

    #[test]
    fn a_host_that_insists_has_its_turn() {
        let mut hold = Hold::default();
        let held = (1..=4 * LONGEST_NS / 1_000_000).map(|ms| ms * 1_000_000).filter(|&now_ns| {
            hold.extend(now_ns);
            hold.pending(now_ns).is_some()
        });
        let held_ms = held.count() as u64;
        assert!(held_ms.abs_diff(2 * LONGEST_NS / 1_000_000) <= 2, "half of the time: {held_ms} ms");
    }
}
