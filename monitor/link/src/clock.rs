//! Moments of the host's monotonic clock.
//!
//! VMM processes stamp boot stages and port calls with the same clock, so a [`Moment`] of the
//! supervisor and a stamp in a register page can be subtracted. Only thin outer layers call
//! [`Moment::now`]; policy is handed its `now`.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Returns the present moment.
    #[must_use]
    pub fn now() -> Self {
        Self(monotonic_ns())
    }

    /// Converts a stamp in a register page to a moment.
    #[must_use]
    pub const fn from_ns(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Converts the moment to a stamp in a register page.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the moment `span` later; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Returns the nanoseconds of `CLOCK_MONOTONIC`. All processes of the host read the same clock, and
/// it is never 0 on a running host.
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::Moment;
    use std::time::Duration;

    #[test]
    fn spans_saturate() {
        let moment = Moment::from_ns(5);
        assert_eq!(moment.since(Moment::from_ns(9)), Duration::ZERO);
        assert_eq!(moment.after(Duration::from_nanos(4)), Moment::from_ns(9));
        assert!(moment.after(Duration::MAX) > moment);
    }

    #[test]
    fn the_clock_runs() {
        let first = Moment::now();
        assert!(Moment::now() >= first && first > Moment::default());
    }
}
