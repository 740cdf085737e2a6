//! The scheduler itself: from samples to decisions.

use std::collections::BTreeMap;

use aerostat_abi::requests::{Answer, FiledRequest, ResourceKind, Resources};
use aerostat_abi::units::FrameCount;

use super::decision::{Decision, InNeed, Inputs, Reason};
use super::enforcement::{Enforced, Others};
use super::fair::{Claim, share_out};
use super::guest::{Guest, Scarcity, Urgency};
use super::limits::GuestId;
use super::policy::{IdleTax, Policy, huge_floor};
use super::pool_state::{PoolState, StateCause};
use super::pressure::{HostMemory, Pressure};
use super::usage::GuestSample;
use crate::clock::Moment;

/// The machine. Guests come by [`Scheduler::admit`] and go by [`Scheduler::remove`].
#[derive(Debug)]
pub struct Scheduler {
    pub(super) pool: FrameCount,
    pub(super) policy: Policy,
    pub(super) guests: BTreeMap<GuestId, Guest>,
    pub(super) next_id: usize,
    pressure: Pressure,
    is_memory_coming: bool,
    /// Minima of guests that wait to be admitted: memory that no guest is raised into.
    awaited: FrameCount,
}

/// What one guest should have, worked out before anything is changed.
#[derive(Clone, Copy, Debug)]
struct Plan {
    id: GuestId,
    from: FrameCount,
    entitlement: FrameCount,
    urgency: Urgency,
    /// The weight of the guest's claim.
    weight: u64,
}

impl Plan {
    fn is_below(&self) -> bool {
        self.urgency != Urgency::Content
    }

    fn missing(&self) -> FrameCount {
        self.entitlement.saturating_sub(self.from)
    }
}

/// What raises may take.
#[derive(Clone, Copy, Debug)]
struct Grantable {
    free: FrameCount,
    limit: RaiseLimit,
}

/// How far a guest may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RaiseLimit {
    Entitlement,
    /// What it gets in any case.
    Guarantee,
}

impl Grantable {
    fn limit(&self, guest: &Guest, entitlement: FrameCount) -> FrameCount {
        match self.limit {
            RaiseLimit::Entitlement => entitlement,
            RaiseLimit::Guarantee => entitlement.min(huge_floor(guest.guaranteed())),
        }
    }
}

impl Scheduler {
    /// Creates a scheduler of `pool`, without guests.
    #[must_use]
    pub fn new(pool: FrameCount, policy: Policy) -> Self {
        Self {
            pool,
            policy,
            guests: BTreeMap::new(),
            next_id: 0,
            pressure: Pressure::default(),
            is_memory_coming: false,
            awaited: FrameCount::ZERO,
        }
    }

    /// Notes a sample of a guest. Guests that were removed are ignored.
    pub fn observe(&mut self, guest: GuestId, sample: &GuestSample) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.observe(sample);
        }
    }

    /// Notes a sample of the host's memory; `None` where it does not say. It belongs to the samples
    /// of guests that were noted last.
    pub fn observe_host(&mut self, host: Option<HostMemory>) {
        let resident = self.sum(|guest| guest.account.resident());
        self.pressure.observe(host, resident, self.pool);
    }

    /// Returns the pool's state as of the last decision.
    #[must_use]
    pub fn state(&self) -> PoolState {
        self.pressure.state()
    }

    /// Returns what set the pool's state.
    #[must_use]
    pub fn state_cause(&self) -> StateCause {
        self.pressure.cause()
    }

    /// Takes in a request of a guest. The next decision counts and answers it. A guest that was
    /// removed is ignored.
    pub fn request(&mut self, guest: GuestId, request: &FiledRequest, now: Moment) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            let standing = guest.standing(guest.account.target());
            guest.requests.file(request, standing, now);
        }
    }

    /// Goes on from what an earlier scheduler has told a guest: requests that it answered for good
    /// are no requests any more.
    pub fn go_on_from(&mut self, guest: GuestId, told: &Resources) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.requests.go_on_from(told);
        }
    }

    /// Returns the answers to a guest's latest requests, as of the last decision.
    pub fn answers(&self, guest: GuestId) -> impl Iterator<Item = (ResourceKind, Answer)> {
        self.guests.get(&guest).into_iter().flat_map(|guest| guest.requests.answers())
    }

    /// Returns a guest's present target.
    #[must_use]
    pub fn target(&self, guest: GuestId) -> Option<FrameCount> {
        self.guests.get(&guest).map(|guest| guest.account.target())
    }

    /// Returns what is done about a guest that is larger than its target, as of the last decision.
    #[must_use]
    pub fn enforced(&self, guest: GuestId) -> Option<Enforced> {
        self.guests.get(&guest)?.enforced()
    }

    /// Returns the pool memory that guests hold.
    #[must_use]
    pub fn held(&self) -> FrameCount {
        self.sum(|guest| guest.account.held())
    }

    /// Returns the pool memory that could be granted: no guest holds it, and the host has it.
    #[must_use]
    pub fn free(&self) -> FrameCount {
        self.capacity().saturating_sub(self.held())
    }

    /// Returns what guests may hold in all.
    #[must_use]
    pub fn capacity(&self) -> FrameCount {
        self.pressure.capacity(self.pool)
    }

    /// Returns Σ of what the guests get in any case.
    #[must_use]
    pub fn guaranteed(&self) -> FrameCount {
        self.sum(Guest::guaranteed)
    }

    /// Sets how much memory guests wait for that are not admitted yet: others shrink for them.
    pub fn set_awaited(&mut self, awaited: FrameCount) {
        self.awaited = awaited;
    }

    /// Returns the tax on idle memory.
    #[must_use]
    pub fn idle_tax(&self) -> IdleTax {
        self.policy.idle_tax
    }

    /// Sets the tax on idle memory.
    pub fn set_idle_tax(&mut self, tax: IdleTax) {
        self.policy.idle_tax = tax;
    }

    /// Returns whether a guest is below its entitlement and others are about to release memory, so
    /// that the next samples should be taken soon.
    #[must_use]
    pub fn is_memory_coming(&self) -> bool {
        self.is_memory_coming
    }

    /// Makes a decision for each guest, in the order of admission. Decisions are in force when this
    /// returns.
    pub fn decide(&mut self, now: Moment) -> Vec<Decision> {
        self.guests.values_mut().for_each(|guest| guest.update(&self.policy, now));
        let free = self.free();
        self.pressure.update(self.held(), self.pool);
        let (state, cause) = (self.state(), self.state_cause());
        let plans = self.plan(now);
        let scarcity = self.scarcity(&plans, free);
        let neediest = plans.iter().filter(|plan| plan.is_below()).max_by_key(|plan| plan.missing());
        let in_need = neediest.map(|plan| InNeed { guest: plan.id, missing: plan.missing() });
        let mut decisions: Vec<Decision> = self
            .guests
            .values_mut()
            .zip(&plans)
            .map(|(guest, plan)| {
                let reason = guest.lower(plan.entitlement, scarcity, &self.policy, now);
                let inputs = Inputs {
                    firm: guest.need.firm,
                    returning: guest.lacking.min(guest.need.firm),
                    demand: guest.need.demand,
                    idle_percent: guest.need.activity.idle_percent(),
                    entitlement: plan.entitlement,
                    free,
                    pool: state,
                    pool_cause: cause,
                    in_need,
                };
                let target = guest.account.target();
                Decision { guest: plan.id, from: plan.from, target, granted: FrameCount::ZERO, reason, inputs }
            })
            .collect();
        self.raise(Urgency::Waiting, &plans, &mut decisions, now);
        self.raise(Urgency::BelowTarget, &plans, &mut decisions, now);
        for (guest, plan) in self.guests.values_mut().zip(&plans) {
            let standing = guest.standing(plan.entitlement);
            guest.requests.settle(standing, now);
        }
        let is_short = |(decision, plan): (&Decision, &Plan)| plan.is_below() && decision.target < plan.entitlement;
        let short: Vec<GuestId> =
            decisions.iter().zip(&plans).filter(|&pair| is_short(pair)).map(|(_, plan)| plan.id).collect();
        let (is_waiting, is_awaited) = (!short.is_empty(), self.awaited > self.free());
        for (id, guest) in &mut self.guests {
            let do_wait = is_awaited || short.iter().any(|other| other != id);
            guest.enforce(if do_wait { Others::Wait } else { Others::Content }, now);
        }
        self.is_memory_coming = (is_waiting || is_awaited) && self.guests.values().any(|guest| guest.is_releasing(now));
        decisions
    }

    /// Works out every guest's entitlement.
    fn plan(&self, now: Moment) -> Vec<Plan> {
        let policy = &self.policy;
        let claims = self.firm_claims(now);
        let firm = share_out(self.available_to_firm(&claims), &claims);
        let soft = self.share_out_rest(&firm);
        let guests = self.guests.iter().zip(&claims).zip(firm.iter().zip(soft));
        guests
            .map(|(((&id, guest), claim), (firm, soft))| {
                let from = guest.account.target();
                let part = firm.saturating_add(soft).min(guest.limits.max);
                // A guest that is stuck keeps what it holds, and has no claim to keep it.
                let entitlement = if guest.is_stuck(now) { part.min(from) } else { part };
                Plan { id, from, entitlement, urgency: guest.urgency(entitlement, policy), weight: claim.weight }
            })
            .collect()
    }

    /// Returns what the guests claim before headroom and file pages.
    fn firm_claims(&self, now: Moment) -> Vec<Claim> {
        let mut room = self.capacity().saturating_sub(self.guaranteed());
        let mut claim = |guest: &Guest| {
            let Some(pin) = guest.pinned() else { return guest.firm_claim(&self.policy, now) };
            let claim = guest.pinned_claim(pin, room, now);
            room = room.saturating_sub(pin.saturating_sub(guest.guaranteed()));
            claim
        };
        self.guests.values().map(&mut claim).collect()
    }

    /// Returns what is shared out among firm needs. A guest that swaps keeps what it has, but does
    /// not grow into the reserve.
    fn available_to_firm(&self, claims: &[Claim]) -> FrameCount {
        let available = self.capacity().saturating_sub(self.awaited);
        let needed = |(guest, claim): (&Guest, &Claim)| guest.needed_at_once(claim);
        let needed = self.guests.values().zip(claims).map(needed).fold(FrameCount::ZERO, FrameCount::saturating_add);
        needed.max(available.saturating_sub(self.reserve())).min(available)
    }

    /// Returns what keeps the pool's state high. File pages, headroom and guests that swap leave it
    /// alone: they must not make a guest wait whose need grows.
    fn reserve(&self) -> FrameCount {
        FrameCount(self.pool.0.saturating_mul(PoolState::High.threshold_percent()).div_ceil(100))
    }

    /// Shares out what firm needs leave, except for the reserve and what is awaited: the reserve
    /// may be granted to a guest that starts.
    fn share_out_rest(&self, firm: &[FrameCount]) -> Vec<FrameCount> {
        let kept = self.reserve().max(self.awaited);
        let taken = firm.iter().copied().fold(kept, FrameCount::saturating_add);
        let claims: Vec<Claim> = self.guests.values().zip(firm).map(|(guest, &firm)| guest.soft_claim(firm)).collect();
        share_out(self.capacity().saturating_sub(taken), &claims)
    }

    /// Returns whether the guests below their entitlement can be satisfied from `free` memory. They
    /// can't while guests hold more than they may in all, since the pool was made smaller or the
    /// host has less.
    fn scarcity(&self, plans: &[Plan], free: FrameCount) -> Scarcity {
        let lacking = |(guest, plan): (&Guest, &Plan)| plan.entitlement.saturating_sub(guest.account.held());
        let below = self.guests.values().zip(plans).filter(|(_, plan)| plan.is_below());
        let shortage = below.map(lacking).fold(self.awaited, FrameCount::saturating_add);
        match self.pressure.state() {
            _ if shortage > free || self.held() > self.capacity() => Scarcity::Short,
            PoolState::High => Scarcity::Plenty,
            PoolState::Soft => Scarcity::LittleFree,
            PoolState::Hard | PoolState::Low => Scarcity::Emergency,
        }
    }

    /// Shares free memory out among the guests of this urgency, as far as the state of the pool
    /// allows.
    fn raise(&mut self, urgency: Urgency, plans: &[Plan], decisions: &mut [Decision], now: Moment) {
        let grantable = self.grantable(urgency);
        // A guest that is being shrunk gets what it has not released yet without a claim on the
        // pool.
        let base = |guest: &Guest, plan: &Plan| huge_floor(guest.account.held()).min(plan.entitlement);
        let claims: Vec<Claim> = self
            .guests
            .values()
            .zip(plans)
            .map(|(guest, plan)| {
                let lacks = grantable.limit(guest, plan.entitlement).saturating_sub(base(guest, plan));
                let has_claim = plan.urgency == urgency && !guest.is_held_back(now);
                let most = if has_claim { lacks } else { FrameCount::ZERO };
                Claim { least: FrameCount::ZERO, most, weight: plan.weight }
            })
            .collect();
        let parts = share_out(grantable.free, &claims);
        let guests = self.guests.values_mut().zip(plans).zip(parts).zip(decisions);
        for (((guest, plan), part), decision) in guests.filter(|(((_, plan), _), _)| plan.urgency == urgency) {
            let target = base(guest, plan).saturating_add(part);
            let is_worth = urgency == Urgency::Waiting || guest.is_worth(target, &self.policy);
            if target <= plan.from || !is_worth || guest.is_held_back(now) {
                decision.reason = Reason::AwaitingMemory;
                continue;
            }
            decision.granted = target.saturating_sub(guest.account.held());
            decision.target = target;
            decision.reason = guest.reason_to_raise();
            guest.raise(target, now);
        }
    }

    /// Returns what may be granted to guests of this urgency in the present state of the pool.
    fn grantable(&self, urgency: Urgency) -> Grantable {
        let (free, limit) = match (self.state(), self.state_cause()) {
            (PoolState::Low, _) if urgency != Urgency::Waiting => (FrameCount::ZERO, RaiseLimit::Entitlement),
            // Guarantees were given for the whole pool.
            (PoolState::Low, StateCause::HostMemory) => (self.pool.saturating_sub(self.held()), RaiseLimit::Guarantee),
            _ => (self.free(), RaiseLimit::Entitlement),
        };
        Grantable { free: free.saturating_sub(self.awaited), limit }
    }

    pub(super) fn sum(&self, count: impl Fn(&Guest) -> FrameCount) -> FrameCount {
        self.guests.values().map(count).fold(FrameCount::ZERO, FrameCount::saturating_add)
    }
}
