//! A token bucket: allows a burst, and limits the sustained rate of events. Pure: the current
//! moment is passed in.
//!
//! The level is kept as time, as in the generic cell rate algorithm (ITU-T I.371): the bucket knows
//! when it will be full, and an event moves that moment on by the time that one token takes to
//! arrive.

use std::time::Duration;

use crate::clock::Moment;

/// What a bucket allows.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Events a second, sustained.
    pub per_second: u32,
    /// Events in a burst, once the bucket is full.
    pub burst: u32,
}

/// A bucket, which is full at first.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    token_ns: u64,
    burst: Duration,
    full_at: Moment,
}

impl TokenBucket {
    /// Returns a full bucket.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        let token_ns = 1_000_000_000 / u64::from(allowance.per_second.max(1));
        let burst = Duration::from_nanos(token_ns.saturating_mul(allowance.burst.into()));
        Self { token_ns, burst, full_at: Moment::default() }
    }

    /// Takes a token if there is one; returns whether there was.
    pub fn take(&mut self, now: Moment) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many tokens if there are as many; returns whether there were.
    pub fn take_many(&mut self, tokens: u32, now: Moment) -> bool {
        let full_at = self.full_at.max(now).after(Duration::from_nanos(self.token_ns.saturating_mul(tokens.into())));
        let has_all = full_at.since(now) <= self.burst;
        if has_all {
            self.full_at = full_at;
        }
        has_all
    }

    /// Takes a token in any case. If there was none, returns the time until the debt is paid.
    pub fn borrow(&mut self, now: Moment) -> Duration {
        self.full_at = self.full_at.max(now).after(Duration::from_nanos(self.token_ns));
        self.full_at.since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, TokenBucket};
    use crate::clock::Moment;
    use proptest::{collection::vec, prop_assert, proptest};
    use std::time::Duration;

    const ALLOWANCE: Allowance = Allowance { per_second: 100, burst: 5 };

    fn at(ms: u64) -> Moment {
        Moment::from_ns(1_000_000_000 + ms * 1_000_000)
    }

    #[test]
    fn what_takes_many_tokens_needs_them_all() {
        let mut bucket = TokenBucket::new(ALLOWANCE);
        assert!(!bucket.take_many(6, at(0)), "it never has as many");
        assert!(bucket.take_many(4, at(0)) && !bucket.take_many(2, at(0)) && bucket.take(at(0)));
        assert!(!bucket.take_many(2, at(19)) && bucket.take_many(2, at(20)));
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let mut bucket = TokenBucket::new(ALLOWANCE);
        assert_eq!((0..7).filter(|_| bucket.take(at(0))).count(), 5);
        assert!(!bucket.take(at(9)) && bucket.take(at(10)) && !bucket.take(at(19)));
        assert_eq!((0..7).filter(|_| bucket.take(at(5000))).count(), 5, "a long rest earns no more than the burst");
    }

    #[test]
    fn borrowing_waits_until_the_debt_is_paid() {
        let mut bucket = TokenBucket::new(ALLOWANCE);
        let waits: Vec<_> = (0..7).map(|_| bucket.borrow(at(0)).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 10, 20]);
        assert_eq!(bucket.borrow(at(25)), Duration::from_millis(5));
    }

    proptest! {
        #[test]
        fn no_more_passes_than_is_allowed(gaps_ms in vec(0_u64..30, 1..300)) {
            let mut bucket = TokenBucket::new(ALLOWANCE);
            let (mut now, mut passed) = (0, 0);
            for gap in gaps_ms {
                now += gap;
                passed += u64::from(bucket.take(at(now)));
                prop_assert!(passed <= 5 + now / 10);
            }
        }
    }
}
