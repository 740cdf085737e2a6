//! The interface of a policy: what it is told, and what it answers.

/// A page's age: a byte that the reclaimer stores beside the page and only the policy reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age(pub u8);

/// How a page became resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A thread has touched it, and no eviction of it is known.
    First,
    /// A thread has touched it after its eviction.
    Refault(Refault),
    /// It came with another page, and no thread has touched it yet.
    Prefetch,
}

/// How soon a page was touched after its eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refault {
    /// Evictions since this page's. About as many more pages of memory would have kept it.
    pub distance: u64,
    /// Pages that are resident now.
    pub resident: u64,
    /// The page's age when the policy gave it up.
    pub age: Age,
}

/// A page that the hand visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The age that the policy gave it last.
    pub age: Age,
    /// The page was touched since the last visit. On the first visit: since it became resident,
    /// where the touch that brought it in counts.
    pub accessed: bool,
}

/// What the policy decides about a page that the hand visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, with this age.
    Keep(Age),
    /// It may be evicted. If it can't be, as when writing it fails, it stays with the age that it
    /// had.
    Evict,
}

/// One scan of all resident pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Pages that the hand has visited.
    pub visited: u64,
    /// Those that were evicted.
    pub evicted: u64,
}

/// Chooses pages to evict by their accessed bits.
///
/// Every implementation gives up a page within [`Policy::PASSES`] passes, even if each visit finds
/// the page touched.
pub trait Policy {
    /// The most passes over the same pages until one of them is given up.
    const PASSES: u32;

    /// Returns the age of a page that has become resident.
    fn arrived(&mut self, how: Arrival) -> Age;

    /// Decides about a page whose accessed bit the hand has read and cleared.
    fn visited(&mut self, page: Seen) -> Verdict;

    /// Returns whether a visit that finds this tells nothing of the page but that it is there, as
    /// it is the first since the page came and was touched. Such a visit may come at any time
    /// before the hand's, and never ends with [`Verdict::Evict`].
    fn is_new(&self, page: Seen) -> bool;

    /// Notes that a pass has ended: since the last call the hand has visited each page that was
    /// resident all the time once.
    fn pass_ended(&mut self, pass: Pass);

    /// Returns how far a page has aged since a visit last found it in use, for the guest's report.
    /// A visit ages it by one step, or by more where no page was old enough to be evicted. A page
    /// that no visit has found in use has the highest age.
    fn age(&self, age: Age) -> u8;
}
