//! How long a worker without work polls for the next request before it sleeps. Pure.
//!
//! Waking a thread costs tens of microseconds, and the notification that wakes it several more: ten
//! times what a small request takes from the host's page cache. A driver with one request at a time
//! in flight pays that for each request. So a worker whose last pause was short polls, with
//! notifications off, for about as long as going to sleep and waking up would take. A worker whose
//! last pause was long sleeps at once, so a disk that is rarely used is never polled.
//!
//! Polling is for idle processors only. The worker yields all the time. Where that lets another
//! thread run, the host is busy, and a sleeping thread is woken sooner than a yielding one gets its
//! turn: then the worker sleeps at once for a while.

/// How long a worker polls at most, in nanoseconds.
const LONGEST_NS: u64 = 100_000;
/// A pause up to this long, waking up included, is a short one.
const SHORT_NS: u64 = 150_000;
/// No other thread ran where a yield took no longer than this.
const YIELD_NS: u64 = 20_000;
/// How long a worker does not poll on a busy host.
const BUSY_NS: u64 = 1_000_000_000;

/// What a worker knows about the pauses between requests.
#[derive(Debug, Default)]
pub(super) struct AdaptivePoll {
    idle_since_ns: Option<u64>,
    until_ns: u64,
    last_sample_ns: u64,
    last_was_short: bool,
    busy_until_ns: u64,
}

impl AdaptivePoll {
    /// Notes that there is nothing more to do.
    pub(super) fn pause(&mut self, now_ns: u64) {
        self.idle_since_ns = Some(now_ns);
        self.last_sample_ns = now_ns;
        let is_worth_it = self.last_was_short && now_ns >= self.busy_until_ns;
        self.until_ns = if is_worth_it { now_ns.saturating_add(LONGEST_NS) } else { now_ns };
    }

    /// Returns whether to yield and poll again; called after each poll that found nothing.
    pub(super) fn goes_on(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.last_sample_ns) > YIELD_NS {
            self.busy_until_ns = now_ns.saturating_add(BUSY_NS);
            return false;
        }
        self.last_sample_ns = now_ns;
        now_ns < self.until_ns
    }

    /// Notes that there is work again.
    pub(super) fn resume(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.idle_since_ns.take() {
            self.last_was_short = now_ns.saturating_sub(since_ns) <= SHORT_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AdaptivePoll, BUSY_NS, LONGEST_NS, SHORT_NS, YIELD_NS};

    /// Returns how long to poll in a pause that begins now, where each yield takes `yield_ns`.
    fn polls(adaptive_poll: &mut AdaptivePoll, now_ns: u64, yield_ns: u64) -> u64 {
        adaptive_poll.pause(now_ns);
        let mut at_ns = now_ns;
        while adaptive_poll.goes_on(at_ns) {
            at_ns += yield_ns;
        }
        at_ns - now_ns
    }

    #[test]
    fn short_pauses_keep_a_worker_awake_and_long_ones_let_it_sleep() {
        let mut adaptive_poll = AdaptivePoll::default();
        adaptive_poll.resume(5);
        assert_eq!(polls(&mut adaptive_poll, 10, 1000), 0, "nothing is known yet");
        adaptive_poll.resume(10 + SHORT_NS);
        assert_eq!(polls(&mut adaptive_poll, 1_000_000, 1000), LONGEST_NS);
        adaptive_poll.resume(1_000_001);
        assert_eq!(polls(&mut adaptive_poll, 2_000_000, 1000), LONGEST_NS);
        adaptive_poll.resume(2_000_001 + SHORT_NS);
        assert_eq!(polls(&mut adaptive_poll, 3_000_000, 1000), 0);
    }

    #[test]
    fn a_busy_host_is_left_alone() {
        let mut adaptive_poll = AdaptivePoll { last_was_short: true, ..AdaptivePoll::default() };
        let slow = YIELD_NS + 1;
        assert_eq!(polls(&mut adaptive_poll, 1_000_000, slow), slow);
        adaptive_poll.resume(1_000_001);
        assert_eq!(polls(&mut adaptive_poll, 2_000_000, 1000), 0);
        adaptive_poll.resume(2_000_001);
        assert_eq!(polls(&mut adaptive_poll, 2_000_000 + BUSY_NS, 1000), LONGEST_NS);
    }
}
