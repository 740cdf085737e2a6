//! The scheduler's record of one guest.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::accounted_usage::AccountedUsage;
use super::decision::Reason;
use super::enforcement::{Enforced, Enforcement, Others};
use super::fair::Claim;
use super::limits::Limits;
use super::need::Need;
use super::patience::Patience;
use super::policy::{Policy, huge_ceil, huge_floor};
use super::release::Release;
use super::requests::{Requests, Standing};
use super::returns::Returns;
use super::subscription::Subscription;
use super::usage::{Control, GuestSample, Hints, Usage};
use super::working_set::{Activity, WorkingSet};
use crate::clock::Moment;

/// How long a confined guest gets no memory back after its target was lowered.
const HELD_BACK: Duration = Duration::from_secs(2);

/// One guest.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) limits: Limits,
    pub(super) subscription: Subscription,
    pub(super) account: AccountedUsage,
    /// The target that a user fixed.
    pub(super) pin: Option<FrameCount>,
    pub(super) requests: Requests,
    hints: Hints,
    /// The need as last noted.
    pub(super) need: Need,
    /// What it lacks by the evicted pages that it brings back: a part of the need.
    pub(super) lacking: FrameCount,
    working_set: WorkingSet,
    returns: Returns,
    patience: Patience,
    release: Release,
    control: Control,
    enforcement: Enforcement,
}

/// What a guest has when the scheduler first learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The target that is in force.
    pub target: FrameCount,
    /// The guest's size.
    pub size: FrameCount,
}

/// How urgently a guest needs memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The target is the entitlement or above it, or so close below it that a change is not worth
    /// it.
    Content,
    /// The target is below the entitlement.
    BelowTarget,
    /// The same, and a thread of the guest waits, or the target is below the minimum, which was
    /// raised.
    Waiting,
}

/// Whether free memory satisfies all guests below their entitlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scarcity {
    /// It does.
    Plenty,
    /// It does, and little is left.
    LittleFree,
    /// It does, and next to nothing is left.
    Emergency,
    /// It does not.
    Short,
}

impl Scarcity {
    /// Returns the least change that is made: where every huge frame counts, each is.
    fn dead_band(self, policy: &Policy) -> FrameCount {
        match self {
            Self::Plenty | Self::LittleFree => policy.dead_band,
            Self::Emergency | Self::Short => FrameCount(1),
        }
    }
}

impl Guest {
    /// Creates the record of a guest that is admitted with its minimum.
    pub(super) fn new(limits: Limits, subscription: Subscription, policy: &Policy) -> Self {
        Self {
            limits,
            subscription,
            account: AccountedUsage::new(limits.min),
            pin: None,
            requests: Requests::default(),
            hints: Hints::None,
            need: Need::just(limits.min),
            lacking: FrameCount::ZERO,
            working_set: WorkingSet::default(),
            returns: Returns::default(),
            patience: Patience::new(policy.patience),
            release: Release::default(),
            control: Control::default(),
            enforcement: Enforcement::default(),
        }
    }

    /// Creates the record of a guest that runs already.
    pub(super) fn adopted(limits: Limits, subscription: Subscription, held: Holding, policy: &Policy) -> Self {
        let Holding { target, size } = held;
        let account = AccountedUsage::held_already(target, size);
        Self { account, need: Need::just(target), ..Self::new(limits, subscription, policy) }
    }

    /// Returns what the guest gets in any case, once it can use it.
    pub(super) fn guaranteed(&self) -> FrameCount {
        guaranteed(self.limits, self.subscription)
    }

    /// Returns the target that a user fixed, within the limits.
    pub(super) fn pinned(&self) -> Option<FrameCount> {
        self.pin.map(|pin| huge_floor(pin).max(self.limits.min).min(self.limits.max))
    }

    fn is_below_pin(&self) -> bool {
        self.pinned().is_some_and(|pin| self.account.target() < pin)
    }

    /// Notes a sample.
    pub(super) fn observe(&mut self, sample: &GuestSample) {
        self.account.observe(sample);
        self.hints = sample.hints;
        // Samples may come faster than decisions.
        let could_run = self.control.could_run.saturating_add(sample.control.could_run);
        self.control = Control { could_run, ..sample.control };
    }

    /// Notes what the guest has done about its target, and what is to be done about the guest.
    pub(super) fn enforce(&mut self, others: Others, now: Moment) {
        self.enforcement.observe(&self.account, &self.control, others, now);
        self.control.could_run = Duration::ZERO;
    }

    /// Returns what is done about the guest, if it is larger than its target.
    pub(super) fn enforced(&self) -> Option<Enforced> {
        self.enforcement.enforced()
    }

    /// Brings need and progress up to date.
    pub(super) fn update(&mut self, policy: &Policy, now: Moment) {
        let target = self.account.target();
        let latest = match self.hints {
            Hints::None => Need::just(target),
            Hints::FixedSize => Need::just(huge_ceil(self.account.observed()).max(self.limits.min)),
            // Its size is what a confined guest can use without its balloon.
            Hints::Report(usage) | Hints::Stale(usage) if self.account.is_confined() => {
                self.need_by(&usage, policy, now).within(self.account.extent().max(self.limits.min))
            }
            Hints::Report(usage) => self.need_by(&usage, policy, now),
            // A guest that makes no calls to its balloon can't grow either.
            Hints::Stale(usage) => self.need_by(&usage, policy, now).within(target.max(self.limits.min)),
        };
        let latest = self.requests.raise(latest, now);
        let is_waiting = self.is_waiting();
        self.need.follow(latest, policy.dead_band, is_waiting);
        self.need = self.need.within(self.limits.max);
        self.release.observe(&self.account, now);
    }

    /// Returns the need by a report, which it takes note of.
    fn need_by(&mut self, usage: &Usage, policy: &Policy, now: Moment) -> Need {
        let used = usage.used.saturating_sub(usage.droppable);
        let activity = Activity::of(used.saturating_sub(usage.idle), used).without_stalls(usage.stalled);
        self.working_set.observe(activity, now);
        self.returns.observe(usage.restored, now);
        self.lacking = self.returns.lacking(usage.evicted, self.account.resident());
        let need = Need::of(usage, self.working_set.activity(), self.limits, policy);
        let need = need.with_returns(self.lacking, self.limits);
        if usage.evicted > FrameCount::ZERO { need.with_free_frames(self.account.target(), policy) } else { need }
    }

    /// Returns whether a thread of the guest waits for memory, or for evicted pages, or will soon.
    pub(super) fn is_waiting(&self) -> bool {
        let is_in_need = self.has_waiting_thread() || self.lacking > FrameCount::ZERO || self.requests.is_pressing();
        is_in_need && !self.account.is_confined()
    }

    /// Returns whether the guest is to wait with the memory that it lacks: it is confined, and was
    /// lowered just now. Without that, memory would be paged out and in by turns.
    pub(super) fn is_held_back(&self, now: Moment) -> bool {
        self.account.is_confined()
            && self.account.target() >= self.guaranteed()
            && self.release.was_asked_within(HELD_BACK, now)
    }

    fn has_waiting_thread(&self) -> bool {
        matches!(self.hints, Hints::Report(usage) if usage.wanted > FrameCount::ZERO)
    }

    /// Returns what the guest's requests are judged by.
    pub(super) fn standing(&self, entitlement: FrameCount) -> Standing {
        let target = self.account.target();
        Standing { target, entitlement, used: self.used(), limits: self.limits }
    }

    /// Returns what the guest uses or can't give up, by its latest report.
    fn used(&self) -> FrameCount {
        match self.hints {
            Hints::None => FrameCount::ZERO,
            Hints::FixedSize => self.account.observed(),
            Hints::Report(usage) | Hints::Stale(usage) => usage.used.max(usage.unshrinkable),
        }
    }

    /// Returns whether the guest is about to release memory: it has begun to, or was asked just
    /// now.
    pub(super) fn is_releasing(&self, now: Moment) -> bool {
        self.account.exceeds_target() && self.release.is_prompt(now)
    }

    /// Returns whether the guest does not follow its target, and can't be made to hold no more.
    pub(super) fn is_stuck(&self, now: Moment) -> bool {
        self.release.is_stuck(now) && !self.enforcement.is_certain()
    }

    /// Returns the claim of a guest whose target a user fixed at `pin`. It is met before the needs
    /// of others, but not before their guarantees: these leave `room`.
    pub(super) fn pinned_claim(&self, pin: FrameCount, room: FrameCount, now: Moment) -> Claim {
        let least = pin.min(self.guaranteed().saturating_add(room));
        let kept = if self.is_stuck(now) { huge_ceil(self.account.held()) } else { FrameCount::ZERO };
        Claim { least: least.max(kept), most: pin, weight: self.subscription.shares.count().into() }
    }

    /// Returns the claim of the firm need. The guest keeps what it can't or does not give up,
    /// whatever its share is: a target that it cannot reach would only keep it busy.
    pub(super) fn firm_claim(&self, policy: &Policy, now: Moment) -> Claim {
        let Need { firm, activity, unshrinkable, .. } = self.need;
        let reserved = self.limits.min.max(firm.min(self.guaranteed()));
        let kept =
            if self.is_stuck(now) { huge_ceil(self.account.held()) } else { unshrinkable.min(self.account.target()) };
        let weight = policy.idle_tax.weight(self.subscription.shares.count(), activity);
        Claim { least: reserved.max(kept), most: firm, weight }
    }

    /// Returns what of its firm claim the guest needs at once: all, or what it has if it swaps.
    pub(super) fn needed_at_once(&self, claim: &Claim) -> FrameCount {
        let is_swapping = self.lacking > FrameCount::ZERO && self.pin.is_none();
        let needed = if is_swapping { claim.most.min(self.account.target()) } else { claim.most };
        needed.max(claim.least)
    }

    /// Returns the claim of the soft need on top of `firm`.
    pub(super) fn soft_claim(&self, firm: FrameCount) -> Claim {
        let most = if self.pin.is_some() { FrameCount::ZERO } else { self.need.demand.saturating_sub(firm) };
        Claim { least: FrameCount::ZERO, most, weight: self.subscription.shares.count().into() }
    }

    /// Returns how urgently the guest needs what it is entitled to.
    pub(super) fn urgency(&self, entitlement: FrameCount, policy: &Policy) -> Urgency {
        let target = self.account.target();
        let missing = entitlement.saturating_sub(target);
        // In a pool that is nearly empty only urgent needs are met. What a guest has asked for and
        // needs soon is one: it asked so that no thread has to wait.
        let is_urgent = self.is_waiting() || target < self.limits.min || self.requests.is_short_at(target);
        if is_urgent && missing > FrameCount::ZERO {
            Urgency::Waiting
        } else if missing >= policy.dead_band || (self.lacks_little() && missing > FrameCount::ZERO) {
            Urgency::BelowTarget
        } else {
            Urgency::Content
        }
    }

    /// Returns whether the guest is to get even the little that it lacks.
    fn lacks_little(&self) -> bool {
        self.is_below_pin() || self.requests.is_short_at(self.account.target())
    }

    /// Returns whether a raise to `target` is worth it, where no thread waits for it.
    pub(super) fn is_worth(&self, target: FrameCount, policy: &Policy) -> bool {
        target.saturating_sub(self.account.target()) >= policy.dead_band || self.lacks_little()
    }

    /// Lowers the target to `entitlement` if it is time. Returns why it was lowered, or kept.
    pub(super) fn lower(
        &mut self,
        entitlement: FrameCount,
        scarcity: Scarcity,
        policy: &Policy,
        now: Moment,
    ) -> Reason {
        let target = self.account.target();
        if target > self.limits.max {
            self.lower_to(self.limits.max, now);
            return Reason::LimitsChanged;
        }
        if self.is_stuck(now) {
            // Its entitlement is what it was lowered to before.
            self.patience.fits();
            return Reason::Uncooperative;
        }
        if let Some(pin) = self.pinned() {
            return self.follow_pin(pin, entitlement, now);
        }
        match self.hints {
            Hints::None => return Reason::Starting,
            Hints::FixedSize => return Reason::FixedSize,
            Hints::Report(_) | Hints::Stale(_) => {}
        }
        let dead_band = scarcity.dead_band(policy);
        if target.saturating_sub(entitlement) < dead_band {
            self.patience.fits();
            return if entitlement < self.need.demand { Reason::AtFairShare } else { Reason::Fits };
        }
        let is_wanted = entitlement < self.need.demand;
        let reason = match scarcity {
            Scarcity::Plenty if !is_wanted => {
                return match self.patience.is_low(entitlement, now) {
                    // The most that was needed meanwhile may be all that the guest has.
                    Some(peak) => {
                        self.lower_to(peak.min(target), now);
                        Reason::Idle
                    }
                    None => Reason::Patience,
                };
            }
            _ if is_wanted && self.is_taxed(policy) => Reason::IdleTaxed,
            _ if is_wanted => Reason::FairShare,
            Scarcity::Short => Reason::NeededElsewhere,
            Scarcity::Plenty | Scarcity::LittleFree | Scarcity::Emergency => Reason::PoolShort,
        };
        self.patience.fits();
        self.lower_to(entitlement, now);
        reason
    }

    /// Returns whether the tax takes a good part off the weight of the guest's claim, for its idle
    /// memory.
    fn is_taxed(&self, policy: &Policy) -> bool {
        let shares = self.subscription.shares.count();
        let [taxed, full] = [self.need.activity, Activity::FULL].map(|part| policy.idle_tax.weight(shares, part));
        taxed < full / 4 * 3
    }

    fn lower_to(&mut self, target: FrameCount, now: Moment) {
        if target < self.account.target() {
            self.release.asked(now);
            self.account.lower(target);
        }
    }

    /// Lowers the target of a guest that a user fixed at `pin`, or at what the pool has of that.
    fn follow_pin(&mut self, pin: FrameCount, entitlement: FrameCount, now: Moment) -> Reason {
        self.patience.fits();
        let target = self.account.target();
        self.lower_to(entitlement.min(target), now);
        match entitlement {
            _ if entitlement >= pin => Reason::Pinned,
            _ if entitlement < target => Reason::FairShare,
            _ => Reason::AtFairShare,
        }
    }

    /// Returns why the target is raised.
    pub(super) fn reason_to_raise(&self) -> Reason {
        if self.account.target() < self.limits.min {
            Reason::LimitsChanged
        } else if self.pin.is_some() {
            Reason::Pinned
        } else if self.has_waiting_thread() {
            Reason::Pressure
        } else if self.requests.asks_beyond(self.used()) {
            Reason::Request
        } else if self.lacking > FrameCount::ZERO {
            Reason::Refaults
        } else {
            Reason::Demand
        }
    }

    /// Raises the target to `target`, which the pool can pay.
    pub(super) fn raise(&mut self, target: FrameCount, now: Moment) {
        self.patience.grows(now);
        self.account.raise(target);
    }
}

/// Returns what a guest with these limits gets in any case, once it can use it.
pub(super) fn guaranteed(limits: Limits, subscription: Subscription) -> FrameCount {
    limits.min.max(subscription.reservation).min(limits.max)
}
