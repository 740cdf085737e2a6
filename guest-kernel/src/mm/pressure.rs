//! Memory pressure: the share of time in which somebody could not go on for want of memory.
//!
//! The figure is the one that Linux calls `some` in its pressure stall information: time in which
//! at least one thread waits in the slow path or for a page to come back from disk. It is kept
//! since boot and over the last five to ten seconds.

use crate::sync::SpinLock;
use crate::time::Instant;

/// Half the span that [`PressureStatistics::recent_per_mille`] looks back.
const WINDOW_NS: u64 = 5_000_000_000;

static STALLS: SpinLock<Stalls> = SpinLock::new(Stalls::new());

/// A thread that can't go on, as long as the value lives.
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

/// How much was stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PressureStatistics {
    /// Nanoseconds since boot in which somebody was stalled.
    pub(crate) stalled_ns: u64,
    /// Times that somebody stalled since boot.
    pub(crate) stalls: u64,
    /// Of the last five to ten seconds, thousandths in which somebody was stalled.
    pub(crate) recent_per_mille: u64,
}

/// The metrics now.
pub(crate) fn statistics() -> PressureStatistics {
    STALLS.lock().statistics(Instant::now())
}

/// A moment, and what had been stalled until then.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: Instant,
    stalled_ns: u64,
}

/// The account of all stalls.
#[derive(Debug)]
struct Stalls {
    /// Threads that stall, and since when at least one does.
    current: u32,
    since: Instant,
    stalled_ns: u64,
    stalls: u64,
    /// Where the last two windows began.
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

    /// Brings the sum up to date, and begins a new window when the latest is full.
    fn settle(&mut self, now: Instant) {
        if self.current > 0 {
            self.stalled_ns += now.since(self.since);
        }
        self.since = now;
        let age = now.since(self.latest.at);
        if age >= WINDOW_NS {
            let mark = Mark { at: now, stalled_ns: self.stalled_ns };
            // After a long silence nothing is known of what lies between: all of it is the window.
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
