//! The clock of the register page.

use rustix::time::{ClockId, clock_gettime};

/// Returns the host's monotonic time in nanoseconds.
///
/// # Panics
/// Never: the clock counts from the host's start.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part| u64::try_from(part).expect("the monotonic clock is not negative");
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
