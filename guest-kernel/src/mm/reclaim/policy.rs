//! Which page goes: the decision, apart from everything that carries it out.
//!
//! The reclaimer walks resident pages like the hand of a clock. For each it reads and clears the accessed bit and asks the policy,
//! which sees that bit, whether the page was written, and the page's *standing*, a few bits kept in its page table entry.

/// A page's standing with the policy: as many bits as a page table entry has to spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing(pub(crate) u8);

impl Standing {
    /// Bits that are kept.
    pub(crate) const BITS: u32 = 3;
}

/// What becomes of a visited page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep(Standing),
    Evict,
}

/// How a page came into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// For the first time, or as if.
    First,
    /// Back from where it was evicted to, `distance` evictions ago, while `resident` pages are in memory.
    Refault { distance: u64, resident: u64 },
}

/// A replacement policy.
pub(crate) trait Policy {
    /// The standing of a page that has just come.
    fn arrived(&mut self, how: Arrival) -> Standing;
    /// What becomes of a page that the hand has come to.
    fn visited(&mut self, standing: Standing, accessed: bool, dirty: bool) -> Verdict;
    /// The hand has been everywhere once.
    fn pass_ended(&mut self);
}

/// CLOCK, or second chance (Corbató, 1968): a page stays as long as it is accessed between two visits.
#[derive(Debug)]
pub(crate) struct Clock;

impl Clock {
    pub(crate) const fn new() -> Self {
        Self
    }
}

impl Policy for Clock {
    fn arrived(&mut self, _how: Arrival) -> Standing {
        Standing(0)
    }

    fn visited(&mut self, standing: Standing, accessed: bool, _dirty: bool) -> Verdict {
        if accessed { Verdict::Keep(standing) } else { Verdict::Evict }
    }

    fn pass_ended(&mut self) {}
}
