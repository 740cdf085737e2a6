//! How long an idle guest keeps memory that no other guest needs, with a memory of regret.
//!
//! Shrinking costs the host, the guest and, when the memory is asked back, the application. Memory
//! that was reclaimed from an idle guest and is asked back soon was reclaimed too early. Each time
//! that happens, the guest's patience doubles, so a guest that alternates between two sizes keeps
//! the larger one. Each time the memory is not asked back, it halves again.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;

/// Times its patience within which a guest that asks memory back regrets the shrinking, and the
/// least such time.
const REGRET_FACTOR: u32 = 8;
const LEAST_REGRET: Duration = Duration::from_secs(2);
/// The longest patience.
const LONGEST: Duration = Duration::from_secs(60);

/// The patience with one guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    length: Duration,
    shortest: Duration,
    /// Since when the guest needs less than it has, and the most that it needed since.
    low: Option<(Moment, FrameCount)>,
    /// When the guest was shrunk because it was idle, until that is known to be right or wrong.
    shrunk: Option<Moment>,
}

impl Patience {
    pub(super) fn new(shortest: Duration) -> Self {
        Self { length: shortest, shortest, low: None, shrunk: None }
    }

    /// Notes that the guest needs what it has.
    pub(super) fn fits(&mut self) {
        self.low = None;
    }

    /// Notes that the guest needs `entitlement` only, less than it has. Returns what it should be
    /// shrunk to once that has lasted long enough: the most that it needed meanwhile.
    pub(super) fn is_low(&mut self, entitlement: FrameCount, now: Moment) -> Option<FrameCount> {
        let (since, peak) = self.low.unwrap_or((now, entitlement));
        let peak = peak.max(entitlement);
        if now.since(since) < self.length {
            self.low = Some((since, peak));
            return None;
        }
        self.low = None;
        if self.shrunk.is_some_and(|shrunk| now.since(shrunk) > self.regret()) {
            self.length = (self.length / 2).max(self.shortest);
        }
        self.shrunk = Some(now);
        Some(peak)
    }

    /// Notes that the guest gets more memory.
    pub(super) fn grows(&mut self, now: Moment) {
        self.low = None;
        let Some(shrunk) = self.shrunk.take() else { return };
        if now.since(shrunk) <= self.regret() {
            self.length = (self.length * 2).min(LONGEST);
        } else {
            self.length = (self.length / 2).max(self.shortest);
        }
    }

    fn regret(&self) -> Duration {
        (self.length * REGRET_FACTOR).max(LEAST_REGRET)
    }
}

#[cfg(test)]
mod tests {
    use super::Patience;
    use crate::clock::Moment;
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    const SHORTEST: Duration = Duration::from_millis(300);
    const SMALL: FrameCount = FrameCount::from_mib(16);

    fn at(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    /// Lets a guest be large and small in turns of `half_ms`; returns how often it was shrunk.
    fn alternate(patience: &mut Patience, from_ms: u64, half_ms: u64, turns: u64) -> u32 {
        let mut shrinks = 0;
        for turn in 0..turns {
            let start = from_ms + 2 * turn * half_ms;
            let mut is_shrunk = false;
            for ms in (start..start + half_ms).step_by(20) {
                is_shrunk |= !is_shrunk && patience.is_low(SMALL, at(ms)).is_some();
            }
            if is_shrunk {
                shrinks += 1;
                patience.grows(at(start + half_ms));
            }
            patience.fits();
        }
        shrinks
    }

    #[test]
    fn a_guest_that_alternates_is_soon_left_alone() {
        let mut patience = Patience::new(SHORTEST);
        assert_eq!(alternate(&mut patience, 0, 400, 100), 1);
        let mut patience = Patience::new(SHORTEST);
        assert_eq!(alternate(&mut patience, 0, 2000, 100), 3, "0.3, 0.6 and 1.2 s are shorter than 2 s, 2.4 s is not");
    }

    #[test]
    fn a_guest_that_stays_idle_is_shrunk_sooner_again() {
        let mut patience = Patience::new(SHORTEST);
        alternate(&mut patience, 0, 2000, 10);
        assert_eq!(patience.length, Duration::from_millis(2400));
        for hour in 1..5 {
            let start = hour * 3_600_000;
            assert!(patience.is_low(SMALL, at(start)).is_none());
            assert!(patience.is_low(SMALL, at(start + 2400)).is_some());
            patience.grows(at(start + 1_800_000));
        }
        assert_eq!(patience.length, SHORTEST);
    }

    #[test]
    fn the_peak_of_the_time_counts() {
        let mut patience = Patience::new(SHORTEST);
        assert_eq!(patience.is_low(SMALL, at(0)), None);
        assert_eq!(patience.is_low(FrameCount::from_mib(99), at(100)), None);
        assert_eq!(patience.is_low(SMALL, at(300)), Some(FrameCount::from_mib(99)));
    }
}
