//! What the scheduler decided for a guest, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fleet::PoolState;

/// A decision of the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// The target before.
    pub from_bytes: u64,
    /// The target afterwards.
    pub to_bytes: u64,
    /// Why.
    pub reason: Reason,
    /// The reason in words.
    pub text: String,
    /// What was decided from.
    pub inputs: Inputs,
}

/// A decision that changed a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastChange {
    /// When, by the host's clock.
    pub at_unix_ms: u64,
    /// When, since the run began.
    pub at_ms: u64,
    /// What was decided.
    pub decision: Decision,
}

/// What a decision was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inputs {
    /// What the guest uses, waits for and brings back, without file pages.
    pub firm_bytes: u64,
    /// Of that, what the guest has evicted and brings back.
    #[serde(default)]
    pub returning_bytes: u64,
    /// What it would like to have.
    pub demand_bytes: u64,
    /// The idle part of its firm need, in per cent.
    pub idle_percent: u8,
    /// What it is entitled to.
    pub entitlement_bytes: u64,
    /// Free pool memory before the decision.
    pub free_bytes: u64,
    /// The state of the pool.
    pub pool_state: PoolState,
    /// The other guest that lacks most of what it is entitled to, if one does.
    pub in_need: Option<String>,
    /// How much the guest lacked that lacked most, this one or another.
    pub missing_bytes: Option<u64>,
}

/// Why a target was changed, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
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
    /// Raised or lowered: the target was outside new limits.
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
    /// Kept: the guest has not followed its last target.
    Uncooperative,
    /// Kept: the guest has no balloon driver, or reports nothing; it keeps the size that it has.
    FixedSize,
    /// A reason that this client does not know.
    #[serde(other)]
    Other,
}
