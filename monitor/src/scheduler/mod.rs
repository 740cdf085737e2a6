//! The resource scheduler: who of the guests gets how much of the pool.
//!
//! A pure machine: [`Scheduler::observe`] takes samples, [`Scheduler::decide`] returns targets with
//! reasons, the moment is passed in; no clock, no I/O, no lock. The supervisor owns one and carries
//! its decisions out.
//!
//! *Words.* The *pool* is the host memory that all guests share. A guest's *demand* is what it uses
//! or has committed to its application, and what somebody in it waits for, and some headroom
//! ([`Policy`]). Its *entitlement* is its max-min fair part of the pool, never less than its
//! minimum and never more than its demand. What it *holds* is what the pool can't give to others
//! now (`accounted_usage.rs`).
//!
//! *Invariant.* Σ held ≤ pool, at any moment and however guests behave: a raise is paid from memory
//! that is free now.
//!
//! *Decisions.* Guests below their entitlement are *hungry*. First targets above the entitlement
//! are lowered: at once if the free memory can't satisfy the hungry, else when demand has been
//! lower for a while. Then what is free is shared out among the hungry. Memory beyond demand stays
//! in the pool, where it costs nobody a detour when somebody wakes up.

mod accounted_usage;
mod decision;
mod fair;
mod limits;
mod moved;
mod policy;
#[cfg(test)]
mod properties;
mod targets;

use std::collections::BTreeMap;

use aerostat_abi::units::FrameCount;

pub use self::decision::{Decision, Reason};
pub use self::limits::{GuestId, GuestSample, Hints, Limits, Usage};
pub use self::moved::{MovedAccount, Reading};
pub use self::policy::Policy;
pub use self::targets::{FutureEpoch, Targets};

use self::accounted_usage::AccountedUsage;
use self::fair::share_out;
use self::policy::huge_floor;
use crate::clock::Moment;

/// The machine. Guests come by [`Scheduler::admit`] and go by [`Scheduler::remove`].
#[derive(Debug)]
pub struct Scheduler {
    pool: FrameCount,
    policy: Policy,
    guests: BTreeMap<GuestId, Account>,
    next_id: usize,
    a_guest_is_waiting: bool,
}

/// Why a guest can't be admitted; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// All minima together would exceed the pool, so that they could not be honoured.
    #[error("the minima of all guests would add up to {minima}, and the pool has {pool}")]
    MinimaExceedPool {
        /// Σ of the minima, the new guest's included.
        minima: FrameCount,
        /// The pool.
        pool: FrameCount,
    },
    /// The minimum is not free now; other guests may let go of memory later.
    #[error("the guest's minimum is {min}, and {free} of the pool is free now")]
    NotFreeNow {
        /// The new guest's minimum.
        min: FrameCount,
        /// What nobody holds.
        free: FrameCount,
    },
}

/// One guest's accounts.
#[derive(Debug)]
struct Account {
    limits: Limits,
    accounted_usage: AccountedUsage,
    hints: Hints,
    /// Demand as last taken notice of: it follows the guest's use in steps, so that noise in one
    /// guest moves nobody's fair share.
    demand: FrameCount,
    /// Set while the entitlement is below the target: since when, and the largest entitlement seen
    /// meanwhile.
    low: Option<(Moment, FrameCount)>,
}

/// What one guest should have, worked out before anything is changed.
#[derive(Clone, Copy, Debug)]
struct Plan {
    guest: GuestId,
    from: FrameCount,
    demand: FrameCount,
    entitlement: FrameCount,
    urgency: Urgency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    /// The target is the entitlement or above it, or so close below that a change is not worth it.
    Content,
    /// The target is below the entitlement.
    BelowTarget,
    /// The same, and somebody in the guest waits.
    Waiting,
}

impl Scheduler {
    /// A scheduler of `pool`, without guests.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy) -> Self {
        Self { pool, policy, guests: BTreeMap::new(), next_id: 0, a_guest_is_waiting: false }
    }

    /// Takes a guest in and returns its first target: its minimum, granted at once.
    ///
    /// # Errors
    ///
    /// [`AdmissionError`] where the pool can't honour the limits, or not yet.
    pub fn admit(&mut self, limits: Limits) -> Result<(GuestId, FrameCount), AdmissionError> {
        let minima = self.minima().saturating_add(limits.min);
        if minima > self.pool {
            return Err(AdmissionError::MinimaExceedPool { minima, pool: self.pool });
        }
        let free = self.free();
        if limits.min > free {
            return Err(AdmissionError::NotFreeNow { min: limits.min, free });
        }
        let id = GuestId(self.next_id);
        self.next_id += 1;
        let accounted_usage = AccountedUsage::new(limits.min);
        self.guests.insert(id, Account { limits, accounted_usage, hints: Hints::None, demand: limits.min, low: None });
        Ok((id, limits.min))
    }

    /// Forgets a guest whose machine is gone: all it held is free at once.
    pub fn remove(&mut self, guest: GuestId) {
        self.guests.remove(&guest);
    }

    /// Notes what was seen of a guest. Guests that were removed are ignored.
    pub fn observe(&mut self, guest: GuestId, sample: &GuestSample) {
        if let Some(account) = self.guests.get_mut(&guest) {
            account.accounted_usage.observe(sample);
            account.hints = sample.hints;
        }
    }

    /// A guest's present target.
    #[must_use]
    pub fn target(&self, guest: GuestId) -> Option<FrameCount> {
        self.guests.get(&guest).map(|account| account.accounted_usage.target())
    }

    /// Pool memory that nobody holds.
    #[must_use]
    pub fn free(&self) -> FrameCount {
        let held = self
            .guests
            .values()
            .fold(FrameCount::ZERO, |sum, account| sum.saturating_add(account.accounted_usage.held()));
        self.pool.saturating_sub(held)
    }

    /// Whether a guest is still below its entitlement: worth another look soon.
    #[must_use]
    pub fn is_guest_waiting(&self) -> bool {
        self.a_guest_is_waiting
    }

    /// One look at all guests: a decision for each, in the order of admission. Decisions are in
    /// force when this returns.
    pub fn decide(&mut self, now: Moment) -> Vec<Decision> {
        let plans = self.plan();
        let free = self.free();
        let scarcity = if self.shortage(&plans) > free { Scarcity::Short } else { Scarcity::Plenty };
        let mut decisions: Vec<Decision> = plans.iter().map(|plan| self.lower_or_keep(plan, scarcity, now)).collect();
        self.raise(&plans, &mut decisions);
        decisions
    }

    /// Demand and entitlement of every guest.
    fn plan(&mut self) -> Vec<Plan> {
        let policy = self.policy;
        let demands: Vec<FrameCount> =
            self.guests.values_mut().map(|account| account.take_notice_of_demand(&policy)).collect();
        let beyond: Vec<FrameCount> = self
            .guests
            .values()
            .zip(&demands)
            .map(|(account, demand)| demand.saturating_sub(account.limits.min))
            .collect();
        let shares = share_out(self.pool.saturating_sub(self.minima()), &beyond);
        let of_guests = self.guests.iter().zip(demands).zip(shares);
        of_guests
            .map(|(((&guest, account), demand), share)| {
                let from = account.accounted_usage.target();
                let entitlement = account.limits.min.saturating_add(share);
                let urgency = self.urgency(account, entitlement);
                Plan { guest, from, demand, entitlement, urgency }
            })
            .collect()
    }

    /// What is committed to the guests for good.
    fn minima(&self) -> FrameCount {
        self.guests.values().fold(FrameCount::ZERO, |sum, account| sum.saturating_add(account.limits.min))
    }

    fn urgency(&self, account: &Account, entitlement: FrameCount) -> Urgency {
        let missing = entitlement.saturating_sub(account.accounted_usage.target());
        if account.waits() && missing > FrameCount::ZERO {
            Urgency::Waiting
        } else if missing >= self.policy.dead_band {
            Urgency::BelowTarget
        } else {
            Urgency::Content
        }
    }

    /// Pool memory that it would take to satisfy all hungry guests.
    fn shortage(&mut self, plans: &[Plan]) -> FrameCount {
        plans
            .iter()
            .filter(|plan| plan.urgency != Urgency::Content)
            .map(|plan| plan.entitlement.saturating_sub(self.account(plan.guest).accounted_usage.held()))
            .fold(FrameCount::ZERO, FrameCount::saturating_add)
    }

    /// Lowers a target that is above the entitlement where the time has come.
    fn lower_or_keep(&mut self, plan: &Plan, scarcity: Scarcity, now: Moment) -> Decision {
        let policy = self.policy;
        let account = self.account(plan.guest);
        let (target, reason) = account.lower(plan, scarcity, &policy, now);
        if target < plan.from {
            account.accounted_usage.lower(target);
        }
        Decision { guest: plan.guest, from: plan.from, target, granted: FrameCount::ZERO, reason }
    }

    /// Shares what is free among the hungry.
    fn raise(&mut self, plans: &[Plan], decisions: &mut [Decision]) {
        let free = self.free();
        // What a guest has not let go of yet (it is being shrunk) it gets back without a claim on
        // the pool.
        let bases: Vec<FrameCount> = plans
            .iter()
            .map(|plan| huge_floor(self.account(plan.guest).accounted_usage.held()).min(plan.entitlement))
            .collect();
        let claims: Vec<FrameCount> = plans
            .iter()
            .zip(&bases)
            .map(|(plan, &base)| match plan.urgency {
                Urgency::Content => FrameCount::ZERO,
                Urgency::BelowTarget | Urgency::Waiting => plan.entitlement.saturating_sub(base),
            })
            .collect();
        let shares = share_out(free, &claims);
        self.a_guest_is_waiting = false;
        for (((plan, base), share), decision) in plans.iter().zip(bases).zip(shares).zip(decisions) {
            if plan.urgency == Urgency::Content {
                continue;
            }
            let target = base.saturating_add(share);
            self.a_guest_is_waiting |= target < plan.entitlement;
            let is_crumb = target.saturating_sub(plan.from) < self.policy.dead_band;
            if target <= plan.from || (is_crumb && plan.urgency != Urgency::Waiting) {
                decision.reason = Reason::AwaitingMemory;
                continue;
            }
            let accounted_usage = &mut self.account(plan.guest).accounted_usage;
            decision.granted = target.saturating_sub(accounted_usage.held());
            decision.target = target;
            decision.reason = if plan.urgency == Urgency::Waiting { Reason::Pressure } else { Reason::Demand };
            accounted_usage.raise(target);
        }
    }

    fn account(&mut self, guest: GuestId) -> &mut Account {
        self.guests.get_mut(&guest).expect("plans are made of the guests that are there")
    }
}

/// Whether free memory satisfies all hungry guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scarcity {
    Plenty,
    Short,
}

impl Account {
    /// Whether somebody in the guest waits for memory.
    fn waits(&self) -> bool {
        matches!(self.hints, Hints::Report(usage) if usage.wanted > FrameCount::ZERO)
    }

    fn take_notice_of_demand(&mut self, policy: &Policy) -> FrameCount {
        let demand = policy.demand(self.limits, self.hints, self.accounted_usage.target());
        let change = FrameCount(demand.0.abs_diff(self.demand.0));
        if change >= policy.dead_band || (self.waits() && demand > self.demand) {
            self.demand = demand;
        }
        self.demand
    }

    /// The target that is due, at most the present one, and why.
    fn lower(&mut self, plan: &Plan, scarcity: Scarcity, policy: &Policy, now: Moment) -> (FrameCount, Reason) {
        if self.hints == Hints::None {
            return (plan.from, Reason::Starting);
        }
        if plan.from.saturating_sub(plan.entitlement) < policy.dead_band {
            self.low = None;
            let reason = if plan.entitlement < plan.demand { Reason::AtFairShare } else { Reason::Fits };
            return (plan.from, reason);
        }
        if scarcity == Scarcity::Short {
            self.low = None;
            let reason = if plan.entitlement < plan.demand { Reason::FairShare } else { Reason::NeededElsewhere };
            return (plan.entitlement, reason);
        }
        let (since, peak) = self.low.unwrap_or((now, plan.entitlement));
        let peak = peak.max(plan.entitlement);
        if now.since(since) < policy.patience {
            self.low = Some((since, peak));
            return (plan.from, Reason::Patience);
        }
        self.low = None;
        (peak, Reason::Idle)
    }
}
