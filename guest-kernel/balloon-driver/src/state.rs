//! What keeps the driver from its target, and what it has done: to be read by whoever reports it.

use core::fmt;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;

/// A line about what hinders the driver is written at most this often.
const SPACING_NS: u64 = 1_000_000_000;

/// Why the guest has not the size that the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The rate allows nothing more for now.
    Rate,
    /// The target lies below the guest's own floor, which is reached.
    Floor,
    /// The guest brings back what it has just put elsewhere: to take more would stop it.
    Thrashing,
    /// All that is left is in use, promised or the kernel's, and nothing of it can be put elsewhere.
    NoMemory,
    /// Somebody in the guest waits for memory, or did so a moment ago.
    GuestShort,
    /// The monitor refuses what it is asked.
    Refused,
    /// The monitor does not answer, or with nothing that makes sense.
    HostSilent,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "the rate allows nothing more for now",
            Self::Floor => "the target is below the guest's floor",
            Self::Thrashing => "the guest is thrashing",
            Self::NoMemory => "nothing is left that the guest can do without",
            Self::GuestShort => "the guest itself waits for memory",
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
    Hindered(Hindrance),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtTarget => f.write_str("at its target"),
            Self::Inflating => f.write_str("inflating"),
            Self::Deflating => f.write_str("deflating"),
            Self::Hindered(hindrance) => hindrance.fmt(f),
        }
    }
}

/// What the driver has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Entries that came back other than done, by their status: [`EntryStatus::ALL`] is the order.
    pub refused_entries: [u64; EntryStatus::ALL.len()],
    /// Times that it found no block to give.
    pub allocation_failures: u64,
    /// Huge frames made whole by moving pages.
    pub compacted: u64,
    /// Conversations begun.
    pub conversations: u64,
    /// Nanoseconds in which it inflated and deflated, calls included.
    pub inflating_ns: u64,
    /// See above.
    pub deflating_ns: u64,
    /// What went wrong last.
    pub last_failure: Option<Failure>,
}

impl Figures {
    pub(crate) fn refused(&mut self, status: EntryStatus) {
        self.refused_entries[status as usize] += 1;
        self.last_failure = Some(Failure::Entry(status));
    }
}

/// Decides when a line is written about what hinders the driver: when that changes, and not too often.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announcements {
    said: Option<Hindrance>,
    at_ns: Option<u64>,
}

impl Announcements {
    /// Looks at the hindrance; returns it if there is something new to be said. The rate's comes and goes all the time, and is
    /// nothing new.
    pub fn news(&mut self, hindrance: Option<Hindrance>, now_ns: u64) -> Option<Option<Hindrance>> {
        let is_early = self.at_ns.is_some_and(|at_ns| now_ns < at_ns.saturating_add(SPACING_NS));
        if is_early || hindrance == self.said || hindrance == Some(Hindrance::Rate) {
            return None;
        }
        (self.said, self.at_ns) = (hindrance, Some(now_ns));
        Some(hindrance)
    }
}

#[cfg(test)]
mod tests {
    use super::{Announcements, Hindrance, SPACING_NS};

    #[test]
    fn a_change_is_said_once_and_not_too_often() {
        let mut announcements = Announcements::default();
        assert_eq!(announcements.news(None, 0), None);
        assert_eq!(announcements.news(Some(Hindrance::Refused), 5), Some(Some(Hindrance::Refused)));
        assert_eq!(announcements.news(Some(Hindrance::Refused), 5 + SPACING_NS), None);
        assert_eq!(announcements.news(None, 5 + SPACING_NS), Some(None));
        assert_eq!(announcements.news(Some(Hindrance::Refused), 6 + SPACING_NS), None, "too soon");
        assert_eq!(announcements.news(Some(Hindrance::NoMemory), 5 + 2 * SPACING_NS), Some(Some(Hindrance::NoMemory)));
        assert_eq!(announcements.news(Some(Hindrance::Rate), 5 + 9 * SPACING_NS), None);
    }
}
