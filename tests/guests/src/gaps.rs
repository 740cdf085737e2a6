//! A record of pauses in work that should never pause. The guest `bench_balloon` keeps one, and the
//! bench `balloon` includes this file to test it.

/// Gaps below so many microseconds are counted by whole microseconds.
const FINE: usize = 4096;

/// The gaps between the ends of two units of work, in nanoseconds.
pub(crate) struct Gaps {
    /// Counts by whole microseconds. The last one counts all longer gaps.
    counts: [u32; FINE + 1],
    count: u64,
    worst: u64,
}

impl Gaps {
    pub(crate) const fn new() -> Self {
        Self { counts: [0; FINE + 1], count: 0, worst: 0 }
    }

    pub(crate) fn add(&mut self, nanoseconds: u64) {
        let microseconds = usize::try_from(nanoseconds / 1000).unwrap_or(FINE);
        self.counts[microseconds.min(FINE)] += 1;
        self.count += 1;
        self.worst = self.worst.max(nanoseconds);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn worst(&self) -> u64 {
        self.worst
    }

    /// Returns the time that at most one gap in a thousand exceeds, rounded up to a microsecond.
    pub(crate) fn p999(&self) -> u64 {
        let mut above = 0;
        for (microseconds, &count) in self.counts.iter().enumerate().rev() {
            above += u64::from(count);
            if above > self.count / 1000 {
                return (1000 * (microseconds as u64 + 1)).min(self.worst);
            }
        }
        0
    }
}
