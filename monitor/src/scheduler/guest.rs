//! One guest in the scheduler: what it is entitled to, what it holds, and what is decided for it.

use aerostat_abi::units::FrameCount;

use super::accounted_usage::AccountedUsage;
use super::decision::{Decision, Reason};
use super::limits::{GuestId, GuestSample, Hints, Limits, Usage};
use super::policy::{Policy, huge_floor};
use crate::clock::Moment;

/// A guest, its accounts, and the decision that is being made for it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: GuestId,
    pub(super) limits: Limits,
    usage: AccountedUsage,
    hints: Hints,
    /// The demand that was last taken into account. It follows the guest's use in steps, so that
    /// noise in one guest does not move the fair shares of others.
    demand: FrameCount,
    low: Option<LowDemand>,
    plan: Plan,
    decision: Decision,
    lacks_memory: bool,
}

/// A time in which the entitlement is below the target.
#[derive(Clone, Copy, Debug)]
struct LowDemand {
    since: Moment,
    /// The largest entitlement in this time.
    peak: FrameCount,
}

/// What a guest should have, worked out for all guests before anything is changed.
#[derive(Clone, Copy, Debug)]
struct Plan {
    entitlement: FrameCount,
    urgency: Urgency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// The target is the entitlement or above it, or so close below that a change is not worth it.
    Content,
    /// The target is below the entitlement.
    BelowTarget,
    /// The same, and a thread in the guest waits for memory.
    Waiting,
}

/// Whether free memory satisfies all guests that are below their entitlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarcity {
    Plenty,
    Short,
}

impl Guest {
    /// Creates a guest whose first target is its minimum.
    pub(super) fn new(id: GuestId, limits: Limits) -> Self {
        let min = limits.min;
        Self {
            id,
            limits,
            usage: AccountedUsage::new(min),
            hints: Hints::None,
            demand: min,
            low: None,
            plan: Plan { entitlement: min, urgency: Urgency::Content },
            decision: Decision {
                guest: id,
                from: min,
                target: min,
                granted: FrameCount::ZERO,
                reason: Reason::Starting,
            },
            lacks_memory: false,
        }
    }

    pub(super) fn target(&self) -> FrameCount {
        self.usage.target()
    }

    /// Returns the pool memory that the guest holds.
    pub(super) fn held(&self) -> FrameCount {
        self.usage.held()
    }

    /// Returns the latest decision.
    pub(super) fn decision(&self) -> Decision {
        self.decision
    }

    pub(super) fn observe(&mut self, sample: &GuestSample) {
        self.usage.observe(sample);
        self.hints = sample.hints;
    }

    /// Takes the guest's present demand into account, where it has changed by enough.
    pub(super) fn update_demand(&mut self, policy: &Policy) {
        let demand = policy.demand(self.limits, self.hints, self.target());
        let change = FrameCount(demand.0.abs_diff(self.demand.0));
        if change >= policy.dead_band || (self.waits() && demand > self.demand) {
            self.demand = demand;
        }
    }

    /// Returns the demand beyond the minimum.
    pub(super) fn claim_beyond_min(&self) -> FrameCount {
        self.demand.saturating_sub(self.limits.min)
    }

    /// Plans for a guest that is entitled to `share` beyond its minimum.
    pub(super) fn plan(&mut self, share: FrameCount, policy: &Policy) {
        let entitlement = self.limits.min.saturating_add(share);
        let missing = entitlement.saturating_sub(self.target());
        let urgency = if self.waits() && missing > FrameCount::ZERO {
            Urgency::Waiting
        } else if missing >= policy.dead_band {
            Urgency::BelowTarget
        } else {
            Urgency::Content
        };
        self.plan = Plan { entitlement, urgency };
    }

    /// Returns the pool memory that it takes to satisfy the guest, if it is below its entitlement.
    pub(super) fn shortage(&self) -> FrameCount {
        if self.is_content() { FrameCount::ZERO } else { self.plan.entitlement.saturating_sub(self.held()) }
    }

    /// Lowers a target that is above the entitlement, if it is time.
    pub(super) fn lower(&mut self, scarcity: Scarcity, policy: &Policy, now: Moment) {
        let from = self.target();
        let (target, reason) = self.lowered_target(scarcity, policy, now);
        if target < from {
            self.usage.lower(target);
        }
        self.decision = Decision { guest: self.id, from, target, granted: FrameCount::ZERO, reason };
    }

    /// Returns the target that is due, at most the present one, and why.
    fn lowered_target(&mut self, scarcity: Scarcity, policy: &Policy, now: Moment) -> (FrameCount, Reason) {
        let from = self.target();
        let Plan { entitlement, .. } = self.plan;
        let is_limited = entitlement < self.demand;
        if self.hints == Hints::None {
            return (from, Reason::Starting);
        }
        if from.saturating_sub(entitlement) < policy.dead_band {
            self.low = None;
            return (from, if is_limited { Reason::AtFairShare } else { Reason::Fits });
        }
        if scarcity == Scarcity::Short {
            self.low = None;
            return (entitlement, if is_limited { Reason::FairShare } else { Reason::NeededElsewhere });
        }
        let LowDemand { since, peak } = self.low.unwrap_or(LowDemand { since: now, peak: entitlement });
        let peak = peak.max(entitlement);
        if now.since(since) < policy.patience {
            self.low = Some(LowDemand { since, peak });
            return (from, Reason::Patience);
        }
        self.low = None;
        (peak, Reason::Idle)
    }

    /// Returns the claim on free memory. A guest that is being shrunk gets back what it has not
    /// released yet without a claim on the pool.
    pub(super) fn claim_on_free(&self) -> FrameCount {
        if self.is_content() { FrameCount::ZERO } else { self.plan.entitlement.saturating_sub(self.base()) }
    }

    /// Raises the target of a guest below its entitlement by `share` of the free memory.
    pub(super) fn raise(&mut self, share: FrameCount, policy: &Policy) {
        self.lacks_memory = false;
        if self.is_content() {
            return;
        }
        let target = self.base().saturating_add(share);
        self.lacks_memory = target < self.plan.entitlement;
        let is_waiting = self.plan.urgency == Urgency::Waiting;
        let is_small = target.saturating_sub(self.decision.from) < policy.dead_band;
        if target <= self.decision.from || (is_small && !is_waiting) {
            self.decision.reason = Reason::AwaitingMemory;
            return;
        }
        self.decision.granted = target.saturating_sub(self.held());
        self.decision.target = target;
        self.decision.reason = if is_waiting { Reason::Pressure } else { Reason::Demand };
        self.usage.raise(target);
    }

    /// Returns whether free memory did not suffice to raise the guest to its entitlement.
    pub(super) fn lacks_memory(&self) -> bool {
        self.lacks_memory
    }

    fn is_content(&self) -> bool {
        self.plan.urgency == Urgency::Content
    }

    /// Returns whether a thread in the guest waits for memory.
    fn waits(&self) -> bool {
        matches!(self.hints, Hints::Report(Usage { wanted, .. }) if wanted > FrameCount::ZERO)
    }

    /// Returns what the guest may have without new memory from the pool.
    fn base(&self) -> FrameCount {
        huge_floor(self.held()).min(self.plan.entitlement)
    }
}
