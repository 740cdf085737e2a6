//! What keeps the driver from its target, and what it has done: to be read by whoever reports it.

use core::fmt;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;

/// A line about what hinders the driver is written at most this often.
const SPACING_NS: u64 = 1_000_000_000;

/// Why the guest has not the size that the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallReason {
    /// The rate allows nothing more for now.
    Rate,
    /// The target lies below the guest's own floor, which is reached.
    Floor,
    /// The guest brings back what it has just put elsewhere: to take more would stop it.
    Thrashing,
    /// All that is left is in use, committed or the kernel's, and nothing of it can be put
    /// elsewhere.
    NoMemory,
    /// Somebody in the guest waits for memory, or did so a moment ago.
    GuestWaiting,
    /// The monitor refuses what it is asked.
    Refused,
    /// The monitor does not answer, or with nothing that makes sense.
    HostSilent,
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "the rate allows nothing more for now",
            Self::Floor => "the target is below the guest's floor",
            Self::Thrashing => "the guest is thrashing",
            Self::NoMemory => "nothing is left that the guest can do without",
            Self::GuestWaiting => "the guest itself waits for memory",
            Self::Refused => "the monitor refuses",
            Self::HostSilent => "the monitor gives no answer that makes sense",
        })
    }
}

/// What went wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody answered, or with garbage.
    Silence,
    /// The call as a whole was refused.
    Call(Status),
    /// An entry was refused, or not looked at.
    Entry(EntryStatus),
    /// The list of what is given contradicts itself.
    List,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("a call was not answered"),
            Self::Call(status) => write!(f, "a call was refused: {status:?}"),
            Self::Entry(status) => write!(f, "an entry was refused: {status:?}"),
            Self::List => f.write_str("the monitor's list contradicts itself"),
        }
    }
}

/// What the driver is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guest has the size that the host wants.
    AtTarget,
    /// It is to be smaller.
    Inflating,
    /// It is to be larger.
    Deflating,
    /// It is to have another size, and this is in the way.
    Hindered(StallReason),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtTarget => f.write_str("at its target"),
            Self::Inflating => f.write_str("inflating"),
            Self::Deflating => f.write_str("deflating"),
            Self::Hindered(stall_reason) => stall_reason.fmt(f),
        }
    }
}

/// What the driver has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Entries that came back other than done, by their status: [`EntryStatus::ALL`] is the order.
    pub refused_entries: [u64; EntryStatus::ALL.len()],
    /// Times that it found no block to give.
    pub allocation_failures: u64,
    /// Huge frames made whole by moving pages.
    pub compacted: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Nanoseconds in which it inflated and deflated, calls included.
    pub inflating_ns: u64,
    /// See above.
    pub deflating_ns: u64,
    /// What went wrong last.
    pub last_failure: Option<Failure>,
}

impl Metrics {
    pub(crate) fn refused(&mut self, status: EntryStatus) {
        self.refused_entries[status as usize] += 1;
        self.last_failure = Some(Failure::Entry(status));
    }
}

/// Decides when a line is written about what hinders the driver: when that changes, and not too
/// often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announcements {
    said: Option<StallReason>,
    at_ns: Option<u64>,
}

impl Announcements {
    /// Looks at the stall reason; returns it if there is something new to be said. The rate's comes
    /// and goes all the time, and is nothing new.
    pub fn news(&mut self, stall_reason: Option<StallReason>, now_ns: u64) -> Option<Option<StallReason>> {
        let is_early = self.at_ns.is_some_and(|at_ns| now_ns < at_ns.saturating_add(SPACING_NS));
        if is_early || stall_reason == self.said || stall_reason == Some(StallReason::Rate) {
            return None;
        }
        (self.said, self.at_ns) = (stall_reason, Some(now_ns));
        Some(stall_reason)
    }
}

#[cfg(test)]
mod tests {
    use super::{Announcements, SPACING_NS, StallReason};

    #[test]
    fn a_change_is_said_once_and_not_too_often() {
        let mut announcements = Announcements::default();
        assert_eq!(announcements.news(None, 0), None);
        assert_eq!(announcements.news(Some(StallReason::Refused), 5), Some(Some(StallReason::Refused)));
        assert_eq!(announcements.news(Some(StallReason::Refused), 5 + SPACING_NS), None);
        assert_eq!(announcements.news(None, 5 + SPACING_NS), Some(None));
        assert_eq!(announcements.news(Some(StallReason::Refused), 6 + SPACING_NS), None, "too soon");
        assert_eq!(
            announcements.news(Some(StallReason::NoMemory), 5 + 2 * SPACING_NS),
            Some(Some(StallReason::NoMemory))
        );
        assert_eq!(announcements.news(Some(StallReason::Rate), 5 + 9 * SPACING_NS), None);
    }
}
