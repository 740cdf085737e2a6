//! What a policy is told and what it answers.

/// A page's age with the policy: a byte that the reclaimer keeps beside the page and only the
/// policy reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age(pub u8);

/// How a page came to be resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Touched, and nothing is known of an eviction.
    First,
    /// Touched after it had been evicted.
    Refault(Refault),
    /// Brought in beside another page: nobody has touched it yet.
    Prefetch,
}

/// How soon an eviction was regretted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refault {
    /// Evictions since this page's: about so many pages more would have kept it.
    pub distance: u64,
    /// Pages resident now.
    pub resident: u64,
    /// The page's age when the policy gave it up.
    pub age: Age,
}

/// A page under the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the policy said about it last.
    pub age: Age,
    /// Touched since the hand was here last or, on its first visit, since the page arrived; the
    /// touch that brought it in counts.
    pub accessed: bool,
}

/// What becomes of a page under the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with this age.
    Keep(Age),
    /// It may go. If it can't (it is pinned, or writing it failed), it stays with the age it had.
    Evict,
}

/// One turn of the hand over everything resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Pages that the hand came to.
    pub visited: u64,
    /// Those of them that the policy gave up.
    pub evicted: u64,
}

/// Chooses victims by their accessed bits.
///
/// Every implementation gives up a page within [`Policy::PASSES`] passes, even if every page is
/// found touched every time.
pub trait Policy {
    /// Passes over unchanging pages after which one of them has been given up at the latest.
    const PASSES: u32;

    /// A page has become resident.
    fn arrived(&mut self, how: Arrival) -> Age;

    /// The hand has come to a page, and has read and cleared its accessed bit.
    fn visited(&mut self, page: Seen) -> Verdict;

    /// The hand has come round: since the last call it has visited everything that was resident all
    /// the while, once.
    fn pass_ended(&mut self, pass: Pass);

    /// How far the page has aged since a visit last found it in use, in steps that are a visit
    /// each, or more than one step a visit where nothing was old enough to go; the most there is
    /// where none has. For the guest's report: nothing is decided by it.
    fn age(&self, age: Age) -> u8;
}
