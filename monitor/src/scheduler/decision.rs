//! The scheduler's decision for one guest, with its reason.

use std::fmt;

use aerostat_abi::units::FrameCount;

use super::limits::GuestId;

/// A decision for one guest. Each guest gets one each time, also where nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The guest.
    pub guest: GuestId,
    /// The target before.
    pub from: FrameCount,
    /// The target from now on.
    pub target: FrameCount,
    /// Free pool memory that this decision granted: less than the raise where the guest had not
    /// released all of the memory yet.
    pub granted: FrameCount,
    /// The reason.
    pub reason: Reason,
}

impl Decision {
    /// Returns whether the target changes, so that the guest must be told.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.from != self.target
    }
}

/// Why a target was changed or kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Raised: the guest uses or has committed more than its target leaves room for.
    Demand,
    /// Raised: a thread in the guest waits for memory.
    Pressure,
    /// Lowered: the guest has needed less for a while.
    Idle,
    /// Lowered: the guest needs less, and another guest is below its entitlement.
    NeededElsewhere,
    /// Lowered: all guests together want more than the pool has, and this one is above its fair
    /// share.
    FairShare,
    /// Kept: the guest has not reported yet.
    Starting,
    /// Kept: the target fits the demand.
    Fits,
    /// Kept: demand is lower, but not for long enough.
    Patience,
    /// Kept: the guest is to grow as soon as others have released memory.
    AwaitingMemory,
    /// Kept: the guest asks for more than its fair share of a pool that is all in demand.
    AtFairShare,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Demand => "it needs more",
            Self::Pressure => "it waits for memory",
            Self::Idle => "it has needed less for a while",
            Self::NeededElsewhere => "it needs less and another guest is short",
            Self::FairShare => "it is above its fair share of a pool that is all in demand",
            Self::Starting => "it has not reported yet",
            Self::Fits => "the target fits",
            Self::Patience => "it may need the memory again soon",
            Self::AwaitingMemory => "others have to release memory first",
            Self::AtFairShare => "it has its fair share of a pool that is all in demand",
        })
    }
}
