//! What the scheduler decided for one guest, and why.

use std::fmt;

use aerostat_abi::units::FrameCount;

use super::limits::GuestId;
use super::pool_state::{PoolState, StateCause};

/// The outcome for one guest; there is one for each guest, also where nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The guest that it concerns.
    pub guest: GuestId,
    /// The target before.
    pub from: FrameCount,
    /// The target from now on.
    pub target: FrameCount,
    /// Free pool memory that this decision granted; less than the raise where the guest had not
    /// released it yet.
    pub granted: FrameCount,
    /// The reason.
    pub reason: Reason,
    /// What the decision was made from.
    pub inputs: Inputs,
}

/// The inputs of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// What the guest uses, waits for and brings back, without file pages.
    pub firm: FrameCount,
    /// Of that, what the guest has evicted and brings back.
    pub returning: FrameCount,
    /// What it would like to have.
    pub demand: FrameCount,
    /// The idle part of what it uses without file pages, in per cent.
    pub idle_percent: u8,
    /// What it is entitled to.
    pub entitlement: FrameCount,
    /// Pool memory that could be granted before the decision.
    pub free: FrameCount,
    /// The state of the pool.
    pub pool: PoolState,
    /// What set it.
    pub pool_cause: StateCause,
    /// The guest that lacks most of what it is entitled to, if one does.
    pub in_need: Option<InNeed>,
}

/// A guest that lacks some of what it is entitled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InNeed {
    /// The guest.
    pub guest: GuestId,
    /// How much it lacks.
    pub missing: FrameCount,
}

impl fmt::Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { firm, returning, demand, idle_percent, entitlement, free, pool, pool_cause, .. } = self;
        write!(f, "uses {firm}, {idle_percent} % of it idle, ")?;
        if *returning > FrameCount::ZERO {
            write!(f, "{returning} of it evicted pages that it brings back, ")?;
        }
        write!(f, "would like {demand}, is entitled to {entitlement}; ")?;
        write!(f, "the pool is {pool}")?;
        if *pool_cause != StateCause::Pool {
            write!(f, " {pool_cause}")?;
        }
        write!(f, ", {free} free")
    }
}

impl Decision {
    /// Returns whether the guest must be told.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.from != self.target
    }

    /// Returns the guest that lacks most, if that is another one.
    #[must_use]
    pub fn other_in_need(&self) -> Option<GuestId> {
        self.inputs.in_need.map(|in_need| in_need.guest).filter(|guest| *guest != self.guest)
    }
}

/// Why a target was changed, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Raised: the guest uses more than its target leaves room for.
    Demand,
    /// Raised: a thread of the guest waits for memory.
    Pressure,
    /// Raised: the guest has asked for memory that it will use.
    Request,
    /// Raised: the guest brings back pages that it had to evict.
    Refaults,
    /// Lowered: the guest has needed less for a while.
    Idle,
    /// Lowered: the guest needs less, and another guest is short of memory.
    NeededElsewhere,
    /// Lowered: the guest needs less, and little of the pool is free.
    PoolShort,
    /// Lowered: all guests together want more than the pool has, and this one is above its share.
    FairShare,
    /// Lowered: the same, and the share is small since much of what the guest uses is idle and
    /// taxed.
    IdleTaxed,
    /// Raised or lowered: the guest's limits were changed, and its target was outside them.
    LimitsChanged,
    /// Raised, lowered or kept: a user fixed the target.
    Pinned,
    /// Kept: the guest has not reported yet.
    Starting,
    /// Kept: the target fits the demand.
    Fits,
    /// Kept: demand is lower, but not for long enough.
    Patience,
    /// Kept: the guest is to grow as soon as others have released memory.
    AwaitingMemory,
    /// Kept: the guest wants more than its share of a pool that is all in demand.
    AtFairShare,
    /// Kept: the guest has not followed its last target; the others are served without it.
    Uncooperative,
    /// Kept: the guest has no balloon driver, or reports nothing; it keeps the size that it has.
    FixedSize,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Demand => "it needs more",
            Self::Pressure => "it waits for memory",
            Self::Request => "it asked for memory ahead of its need",
            Self::Refaults => "it brings back pages that it had to evict",
            Self::Idle => "it has needed less for a while",
            Self::NeededElsewhere => "it needs less and another guest is short",
            Self::PoolShort => "it needs less and little of the pool is free",
            Self::FairShare => "it is above its fair share of a pool that is all in demand",
            Self::IdleTaxed => "its idle memory is taxed in a pool that is all in demand",
            Self::LimitsChanged => "its limits were changed",
            Self::Pinned => "a user fixed it",
            Self::Starting => "it has not reported yet",
            Self::Fits => "the target fits",
            Self::Patience => "it may need the memory again soon",
            Self::AwaitingMemory => "others have to release memory first",
            Self::AtFairShare => "it has its fair share of a pool that is all in demand",
            Self::Uncooperative => "it does not follow its target",
            Self::FixedSize => "its size is fixed: it has no balloon driver, or reports nothing",
        })
    }
}
