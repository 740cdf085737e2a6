//! Tells the application that memory is short before pages are evicted: freeing memory that it can
//! spare is cheaper than compressing or writing pages.
//!
//! The listener (the application, [`set_listener`]) gets a short time to react, and is told again
//! only after a while. Without a listener no thread waits.

use spin::Once;

use super::pressure;
use crate::arch::x86_64::cpu;
use crate::config::{PRESSURE_SPACING_NS, PRESSURE_STALL_PER_MILLE};
use crate::sync::{LockRank, SpinLock};
use crate::time::Instant;

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Few frames are free: pages will be evicted unless some become free.
    Low,
    /// Threads wait for memory a large part of the time, or the host takes memory that is in use.
    High,
}

/// What noticed the shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Free frames have become few, or a thread is about to wait for one.
    FewFree,
    /// The balloon asks for more than is free.
    Balloon,
}

/// A listener that can free memory without losing anything that it needs.
pub(crate) trait Listener: Sync {
    /// Tells the listener that memory is short.
    fn hear(&self, pressure: Pressure);
    /// Waits until the listener has reacted to the last announcement, or its time is over.
    fn wait(&self);
}

static LISTENER: Once<&'static dyn Listener> = Once::new();
static ANNOUNCEMENTS: SpinLock<Announcements> = SpinLock::new(LockRank::Announcements, Announcements { last: None });

/// Sets the listener.
pub(crate) fn set_listener(listener: &'static dyn Listener) {
    LISTENER.call_once(|| listener);
}

/// Tells the listener that memory is short, unless it has just been told, and gives it time to
/// react. Called before a thread evicts pages or waits.
pub(crate) fn announce(cause: Cause) {
    let Some(listener) = LISTENER.get() else { return };
    let stalled_per_mille = pressure::statistics().recent_per_mille;
    let announced = ANNOUNCEMENTS.lock().announce(cause, stalled_per_mille, Instant::now());
    if let Some(pressure) = announced {
        listener.hear(pressure);
    }
    if !cpu::is_masked() {
        listener.wait();
    }
}

/// When the listener was told last. Decides whether to tell it again.
#[derive(Debug)]
struct Announcements {
    last: Option<Instant>,
}

impl Announcements {
    fn announce(&mut self, cause: Cause, stalled_per_mille: u64, now: Instant) -> Option<Pressure> {
        if self.last.is_some_and(|last| now < last.after(PRESSURE_SPACING_NS)) {
            return None;
        }
        self.last = Some(now);
        let is_high = cause == Cause::Balloon || stalled_per_mille >= PRESSURE_STALL_PER_MILLE;
        Some(if is_high { Pressure::High } else { Pressure::Low })
    }
}

#[cfg(test)]
mod tests {
    use super::{Announcements, Cause, Pressure};
    use crate::config::{PRESSURE_SPACING_NS, PRESSURE_STALL_PER_MILLE};
    use crate::time::Instant;

    #[test]
    fn stalls_and_the_balloon_make_pressure_high() {
        let level = |cause, per_mille| Announcements { last: None }.announce(cause, per_mille, Instant::from_nanos(5));
        assert_eq!(level(Cause::FewFree, 0), Some(Pressure::Low));
        assert_eq!(level(Cause::FewFree, PRESSURE_STALL_PER_MILLE - 1), Some(Pressure::Low));
        assert_eq!(level(Cause::FewFree, PRESSURE_STALL_PER_MILLE), Some(Pressure::High));
        assert_eq!(level(Cause::Balloon, 0), Some(Pressure::High));
    }

    #[test]
    fn a_listener_is_not_told_twice_in_a_short_time() {
        let mut announcements = Announcements { last: None };
        let mut tell =
            |nanoseconds| announcements.announce(Cause::FewFree, 0, Instant::from_nanos(nanoseconds)).is_some();
        assert!(tell(7));
        assert!(!tell(8));
        assert!(!tell(6 + PRESSURE_SPACING_NS));
        assert!(tell(7 + PRESSURE_SPACING_NS));
        assert!(!tell(8 + PRESSURE_SPACING_NS), "counted from the last time");
    }
}
