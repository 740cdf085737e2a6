//! What keeps the driver from its target, and what it has done, for reports and logs.

use core::fmt;

use aerostat_abi::batch::EntryStatus;
use aerostat_abi::port::Status;

/// The shortest time between two lines about stall reasons.
const SPACING_NS: u64 = 1_000_000_000;

/// Why the guest does not have the size that the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallReason {
    /// The rate allows nothing more for now.
    Rate,
    /// The target lies below the guest's own floor, which is reached.
    Floor,
    /// The guest restores pages soon after they were evicted; evicting more would stop it.
    Thrashing,
    /// All memory that is left is in use, committed or reserved for the kernel, and no page can be
    /// evicted.
    NoMemory,
    /// A thread of the guest waits for memory, or did so recently; or the guest keeps memory beyond
    /// its target because a thread waited, which only some hosts permit.
    GuestWaiting,
    /// The monitor refuses the driver's calls or entries.
    Refused,
    /// The monitor does not answer, or not with a valid reply.
    HostSilent,
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "the rate allows nothing more for now",
            Self::Floor => "the target is below the guest's floor",
            Self::Thrashing => "the guest is thrashing",
            Self::NoMemory => "no memory is left that the guest can spare",
            Self::GuestWaiting => "the guest itself waits for memory",
            Self::Refused => "the monitor refuses",
            Self::HostSilent => "the monitor gives no valid answer",
        })
    }
}

/// What went wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no answer, or no valid one.
    Silence,
    /// The call as a whole was refused.
    Call(Status),
    /// An entry was refused, or not processed.
    Entry(EntryStatus),
    /// The monitor's list of ballooned frames contradicts itself.
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

/// The driver's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The guest has the size that the host wants.
    AtTarget,
    /// The guest is above its target, and the driver inflates.
    Inflating,
    /// The guest is below its target, and the driver deflates.
    Deflating,
    /// The guest is not at its target, for this reason.
    Stalled(StallReason),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtTarget => f.write_str("at its target"),
            Self::Inflating => f.write_str("inflating"),
            Self::Deflating => f.write_str("deflating"),
            Self::Stalled(stall_reason) => stall_reason.fmt(f),
        }
    }
}

/// What the driver has done since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Entries that were not done, by their status, in the order of [`EntryStatus::ALL`].
    pub refused_entries: [u64; EntryStatus::ALL.len()],
    /// Times that it found no block to inflate.
    pub allocation_failures: u64,
    /// Huge frames made whole by moving pages.
    pub compacted: u64,
    /// Huge frames made whole by evicting pages.
    pub assembled: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Nanoseconds in which it inflated, calls included.
    pub inflating_ns: u64,
    /// Nanoseconds in which it deflated, calls included.
    pub deflating_ns: u64,
    /// What went wrong last.
    pub last_failure: Option<Failure>,
}

impl Metrics {
    /// Counts an entry that was not done.
    pub(crate) fn note_refusal(&mut self, status: EntryStatus) {
        self.refused_entries[status as usize] += 1;
        self.last_failure = Some(Failure::Entry(status));
    }
}

/// A change of the stall reason that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StallChange {
    /// The driver has this stall reason now.
    Stalled(StallReason),
    /// The driver has no stall reason any more.
    Ended,
}

/// Decides when a change of the stall reason is logged: not more than one a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct StallLog {
    logged: Option<StallReason>,
    logged_ns: Option<u64>,
}

impl StallLog {
    /// Returns the change to log, if there is one now. [`StallReason::Rate`] comes and goes many
    /// times a second and is not logged.
    pub fn observe(&mut self, stall_reason: Option<StallReason>, now_ns: u64) -> Option<StallChange> {
        let is_early = self.logged_ns.is_some_and(|logged_ns| now_ns < logged_ns.saturating_add(SPACING_NS));
        if is_early || stall_reason == self.logged || stall_reason == Some(StallReason::Rate) {
            return None;
        }
        (self.logged, self.logged_ns) = (stall_reason, Some(now_ns));
        Some(stall_reason.map_or(StallChange::Ended, StallChange::Stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::{SPACING_NS, StallChange, StallLog, StallReason};

    #[test]
    fn a_change_is_logged_once_and_not_too_often() {
        let stalled = |reason| Some(StallChange::Stalled(reason));
        let mut log = StallLog::default();
        assert_eq!(log.observe(None, 0), None);
        assert_eq!(log.observe(Some(StallReason::Refused), 5), stalled(StallReason::Refused));
        assert_eq!(log.observe(Some(StallReason::Refused), 5 + SPACING_NS), None);
        assert_eq!(log.observe(None, 5 + SPACING_NS), Some(StallChange::Ended));
        assert_eq!(log.observe(Some(StallReason::Refused), 6 + SPACING_NS), None, "too soon");
        assert_eq!(log.observe(Some(StallReason::NoMemory), 5 + 2 * SPACING_NS), stalled(StallReason::NoMemory));
        assert_eq!(log.observe(Some(StallReason::Rate), 5 + 9 * SPACING_NS), None);
    }
}
