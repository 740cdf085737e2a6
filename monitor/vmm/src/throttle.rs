//! How fast a guest may call the balloon port. A guest that calls faster waits, in its own vCPU's
//! thread. Pure.
//!
//! A call costs the host at least an exit, and may take the lock of the VMM process's address
//! space. A driver needs one call for each batch and a few a second besides. At the speed of the
//! host's release, with full batches of single frames, that comes to 3,000 calls a second while
//! there is memory to inflate. So the burst covers 31 GiB in single frames, and the sustained rate
//! is 7.8 GiB a second.

use std::time::Duration;

use aerostat_link::clock::Moment;
use aerostat_link::token_bucket::{Allowance, TokenBucket};

const CALLS: Allowance = Allowance { per_second: 4_000, burst: 16_000 };
/// Shorter waits are combined into one: below this, a sleep costs more than it lasts.
const SHORTEST: Duration = Duration::from_millis(1);

/// The limit on a guest's calls, and its statistics.
#[derive(Debug)]
pub(super) struct Throttle {
    bucket: TokenBucket,
    /// Calls that came faster than allowed.
    calls: u64,
    /// Time that the guest was told to wait.
    waited: Duration,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self { bucket: TokenBucket::new(CALLS), calls: 0, waited: Duration::ZERO }
    }

    /// Counts a call; returns how long the guest has to wait before its reply. Never longer than
    /// [`SHORTEST`] and the time of a call.
    pub(super) fn call(&mut self, now: Moment) -> Option<Duration> {
        let wait = self.bucket.borrow(now);
        self.calls += u64::from(wait > Duration::ZERO);
        if wait < SHORTEST {
            return None;
        }
        self.waited += wait;
        Some(wait)
    }

    /// Returns the number of calls that came faster than allowed.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Returns the nanoseconds that the guest was told to wait.
    pub(super) fn waited_ns(&self) -> u64 {
        u64::try_from(self.waited.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{CALLS, SHORTEST, Throttle};
    use aerostat_link::clock::Moment;
    use std::time::Duration;

    /// Simulates a guest that calls every `gap_ns`, and waits when it is told to. Returns its
    /// number of calls and the longest wait.
    fn calls_in(seconds: u64, throttle: &mut Throttle, gap_ns: u64) -> (u64, Duration) {
        let begin = Moment::from_ns(1 << 40);
        let (mut now, mut calls, mut longest) = (begin, 0, Duration::ZERO);
        while now.since(begin) < Duration::from_secs(seconds) {
            calls += 1;
            let wait = throttle.call(now).unwrap_or_default();
            longest = longest.max(wait);
            now = now.after(wait + Duration::from_nanos(gap_ns));
        }
        (calls, longest)
    }

    #[test]
    fn a_guest_that_calls_without_end_gets_its_burst_and_its_rate() {
        let mut throttle = Throttle::new();
        let (calls, longest) = calls_in(1, &mut throttle, 1_000);
        let allowed = u64::from(CALLS.burst + CALLS.per_second);
        assert!((allowed - 10..allowed + 10).contains(&calls), "{calls} calls");
        assert!(longest < SHORTEST + Duration::from_millis(1), "{longest:?}");
        assert!(throttle.calls() > 3_900 && throttle.waited_ns() > 900_000_000);
    }

    #[test]
    fn a_driver_never_waits() {
        let mut throttle = Throttle::new();
        assert_eq!(calls_in(1, &mut throttle, 1_000_000_000 / 16_000).1, Duration::ZERO, "all memory at once");
        let mut throttle = Throttle::new();
        assert_eq!(calls_in(20, &mut throttle, 1_000_000_000 / 4_000).1, Duration::ZERO);
        assert_eq!((throttle.calls(), throttle.waited_ns()), (0, 0));
    }
}
