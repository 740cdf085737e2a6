//! How long the driver does not inflate because a thread of the guest waits for memory: until some
//! time after the wait, but not for ever.
//!
//! A guest that always wants more than there is would otherwise keep the host from moving idle
//! memory to other guests. So after the longest hold, the driver inflates for as long again.

/// How long a hold lasts after the last wait.
const HOLD_NS: u64 = 200_000_000;
/// The longest hold, and the time after it in which no other begins.
const LONGEST_NS: u64 = 1_000_000_000;

/// The current hold, or the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hold {
    since_ns: u64,
    until_ns: u64,
}

impl Hold {
    /// Notes that a thread waits for memory.
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

    /// Returns when the hold ends, or `None` when there is none.
    pub(crate) fn pending(&self, now_ns: u64) -> Option<u64> {
        (now_ns < self.until_ns).then_some(self.until_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::{HOLD_NS, Hold, LONGEST_NS};

    #[test]
    fn a_hold_outlasts_the_wait() {
        let mut hold = Hold::default();
        assert_eq!(hold.pending(0), None);
        hold.extend(5);
        hold.extend(10);
        assert_eq!((hold.pending(10), hold.pending(10 + HOLD_NS)), (Some(10 + HOLD_NS), None));
        hold.extend(10 + HOLD_NS);
        assert_eq!(hold.pending(10 + HOLD_NS), Some(10 + 2 * HOLD_NS), "another hold begins");
    }

    #[test]
    fn a_guest_that_always_waits_is_held_half_of_the_time() {
        let mut hold = Hold::default();
        let held = (1..=4 * LONGEST_NS / 1_000_000).map(|ms| ms * 1_000_000).filter(|&now_ns| {
            hold.extend(now_ns);
            hold.pending(now_ns).is_some()
        });
        let held_ms = held.count() as u64;
        assert!(held_ms.abs_diff(2 * LONGEST_NS / 1_000_000) <= 2, "half of the time: {held_ms} ms");
    }
}
