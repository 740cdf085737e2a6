//! Memory pressure: the share of time in which at least one thread waited for memory.
//!
//! Linux calls this metric `some` in its pressure stall information: time in which at least one
//! thread is in the slow path or waits for a page to be read back from disk. It is kept since boot
//! and over the last five to ten seconds.

use crate::sync::{LockRank, SpinLock};
use crate::time::Instant;

/// Half the time span that [`PressureStatistics::recent_per_mille`] covers.
const WINDOW_NS: u64 = 5_000_000_000;

static STALLS: SpinLock<Stalls> = SpinLock::new(LockRank::Stalls, Stalls::new());

/// A stalled thread. The stall lasts as long as the value lives.
#[derive(Debug)]
pub(crate) struct Stall(());

impl Stall {
    pub(crate) fn begin() -> Self {
        STALLS.lock().begin(Instant::now());
        Self(())
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        STALLS.lock().end(Instant::now());
    }
}

/// How long and how often threads stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PressureStatistics {
    /// Nanoseconds since boot in which a thread was stalled.
    pub(crate) stalled_ns: u64,
    /// Number of stalls since boot.
    pub(crate) stalls: u64,
    /// Thousandths of the last five to ten seconds in which a thread was stalled.
    pub(crate) recent_per_mille: u64,
}

/// Returns the current metrics.
pub(crate) fn statistics() -> PressureStatistics {
    STALLS.lock().statistics(Instant::now())
}

/// A moment, and the stalled time up to it.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Instant,
    stalled_ns: u64,
}

/// The account of all stalls.
#[derive(Debug)]
struct Stalls {
    /// The number of stalled threads, and since when there is at least one.
    current: u32,
    since: Instant,
    stalled_ns: u64,
    stalls: u64,
    /// The starts of the last two windows.
    previous: Mark,
    latest: Mark,
}

impl Stalls {
    const fn new() -> Self {
        let boot = Mark { at: Instant::from_nanos(0), stalled_ns: 0 };
        Self { current: 0, since: boot.at, stalled_ns: 0, stalls: 0, previous: boot, latest: boot }
    }

    fn begin(&mut self, now: Instant) {
        self.settle(now);
        self.current += 1;
        self.stalls += 1;
    }

    fn end(&mut self, now: Instant) {
        self.settle(now);
        self.current -= 1;
    }

    fn statistics(&mut self, now: Instant) -> PressureStatistics {
        self.settle(now);
        let (time, stalled_ns) = (now.since(self.previous.at), self.stalled_ns - self.previous.stalled_ns);
        let recent_per_mille = (stalled_ns * 1000).checked_div(time).unwrap_or(0).min(1000);
        PressureStatistics { stalled_ns: self.stalled_ns, stalls: self.stalls, recent_per_mille }
    }

    /// Updates the sum, and begins a new window when the latest is full.
    fn settle(&mut self, now: Instant) {
        if self.current > 0 {
            self.stalled_ns += now.since(self.since);
        }
        self.since = now;
        let age = now.since(self.latest.at);
        if age >= WINDOW_NS {
            let mark = Mark { at: now, stalled_ns: self.stalled_ns };
            // After a long time without updates the windows between are unknown: all of that time
            // is one window.
            self.previous = if age < 2 * WINDOW_NS || self.current > 0 { self.latest } else { mark };
            self.latest = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stalls;
    use crate::time::Instant;

    const SECOND: u64 = 1_000_000_000;

    fn at(tenths: u64) -> Instant {
        Instant::from_nanos(tenths * SECOND / 10)
    }

    #[test]
    fn stalls_that_overlap_count_once() {
        let mut stalls = Stalls::new();
        stalls.begin(at(10));
        stalls.begin(at(15));
        stalls.end(at(20));
        stalls.end(at(30));
        let metrics = stalls.statistics(at(40));
        assert_eq!((metrics.stalled_ns, metrics.stalls), (2 * SECOND, 2));
        assert_eq!(metrics.recent_per_mille, 500);
    }

    #[test]
    fn a_stall_counts_while_it_lasts() {
        let mut stalls = Stalls::new();
        stalls.begin(at(0));
        assert_eq!(stalls.statistics(at(20)).recent_per_mille, 1000);
        assert_eq!(stalls.statistics(at(900)).recent_per_mille, 1000);
    }

    #[test]
    fn what_is_long_past_is_no_pressure() {
        let mut stalls = Stalls::new();
        stalls.begin(at(0));
        stalls.end(at(50));
        assert!(stalls.statistics(at(60)).recent_per_mille > 500);
        for now in [110, 170, 230] {
            stalls.statistics(at(now));
        }
        assert_eq!(stalls.statistics(at(230)).recent_per_mille, 0);
        assert_eq!(stalls.statistics(at(9000)).recent_per_mille, 0);
    }
}
