//! Simulated guests of all characters, for the invariants that hold whatever guests do.

use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};
use proptest::prelude::{Just, Strategy};
use proptest::prop_oneof;

use super::{
    Acknowledgement, Control, Decision, Enforced, GuestId, GuestSample, Hints, IdleTax, IgnoredTarget, Limits,
};
use super::{Means, Policy, Reason, ResidentLimit, Rung, Scheduler, Shares, Subscription, Targets, Usage};
use crate::clock::Moment;

pub(super) const TICK: Duration = Duration::from_millis(20);

/// How a guest behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Character {
    /// It follows its target and says what it uses.
    Ideal,
    /// It waits for nothing, as it moves to its swap disk what it has no room for, and brings it
    /// back.
    Swapping,
    /// It can't shrink below what it needs, and does not say so.
    Limited,
    /// It releases nothing from this tick on.
    Stuck { from: u32 },
    /// It releases nothing in every other period of so many ticks.
    StuckAtTimes { period: u32 },
    /// It says that it uses and waits for all memory that there is.
    ClaimsAll,
    /// It says that it uses nothing.
    ClaimsNothing,
    /// Its process ends at this tick.
    Crashing { at: u32 },
    /// It releases nothing, and its process acknowledges limits and keeps none.
    Lying,
    /// Its process does nothing from this tick on.
    Stopped { from: u32 },
}

/// What a guest is like: sizes in huge frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    pub(super) character: Character,
    pub(super) min: u64,
    pub(super) more: u64,
    pub(super) needs: u64,
    /// The idle part of what it needs, in per cent.
    pub(super) idle: u64,
    /// Ticks until its process acts on a target.
    pub(super) delay: u32,
    /// What it moves in a tick at most.
    pub(super) rate: u64,
    /// What the host can do about it.
    pub(super) means: Means,
    /// What its process pages out in a tick.
    pub(super) paging: u64,
}

impl Spec {
    pub(super) fn limits(&self) -> Limits {
        let min = FrameCount(self.min * HUGE_FRAMES);
        Limits { min, max: FrameCount(min.0 + self.more * HUGE_FRAMES) }
    }

    fn needs(&self) -> FrameCount {
        FrameCount(self.needs * HUGE_FRAMES).min(self.limits().max)
    }
}

pub(super) fn character() -> impl Strategy<Value = Character> {
    prop_oneof![
        3 => Just(Character::Ideal),
        2 => Just(Character::Swapping),
        1 => Just(Character::Limited),
        1 => (0_u32..150).prop_map(|from| Character::Stuck { from }),
        1 => (1_u32..150).prop_map(|period| Character::StuckAtTimes { period }),
        1 => Just(Character::ClaimsAll),
        1 => Just(Character::ClaimsNothing),
        1 => (1_u32..200).prop_map(|at| Character::Crashing { at }),
    ]
}

pub(super) fn spec(character: impl Strategy<Value = Character>) -> impl Strategy<Value = Spec> {
    (character, 1_u64..20, 20_u64..250, 0_u64..300, 0_u64..=100, 0_u32..4, 1_u64..200).prop_map(
        |(character, min, more, needs, idle, delay, rate)| {
            let (means, paging) = (Means::None, 0);
            Spec { character, min, more, needs, idle, delay, rate, means, paging }
        },
    )
}

/// A guest that the host can do something about.
pub(super) fn enforceable(
    character: impl Strategy<Value = Character>,
    means: impl Strategy<Value = Means>,
) -> impl Strategy<Value = Spec> {
    (spec(character), means, 1_u64..50).prop_map(|(spec, means, paging)| Spec { means, paging, ..spec })
}

pub(super) fn means() -> impl Strategy<Value = Means> {
    let rule =
        prop_oneof![3 => Just(IgnoredTarget::Page), 1 => Just(IgnoredTarget::Pause), 1 => Just(IgnoredTarget::Kill)];
    let process = prop_oneof![Just(IgnoredTarget::Page), Just(IgnoredTarget::Pause), Just(IgnoredTarget::Kill)];
    prop_oneof![
        1 => Just(Means::None),
        1 => Just(Means::Pause),
        1 => process.prop_map(Means::Process),
        4 => rule.prop_map(Means::Paging),
    ]
}

/// Any character, and those that only enforcement can deal with.
pub(super) fn any_character() -> impl Strategy<Value = Character> {
    prop_oneof![
        8 => character(),
        1 => Just(Character::Lying),
        1 => (0_u32..150).prop_map(|from| Character::Stopped { from }),
    ]
}

/// A guest with its process.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: GuestId,
    pub(super) spec: Spec,
    targets: Targets,
    /// The last target that was sent.
    scheduled: FrameCount,
    /// Targets on their way to the process: when they arrive.
    sent: Vec<(u32, FrameCount, Epoch)>,
    /// What the process acts on.
    target: FrameCount,
    acknowledged: Epoch,
    pub(super) size: FrameCount,
    pub(super) resident: FrameCount,
    limits: ResidentLimit,
    /// A limit on its way to the process: when it arrives.
    sent_limit: Option<(u32, Option<FrameCount>)>,
    /// The limit that the process acts on.
    limit: Option<FrameCount>,
    is_paused: bool,
    /// Pages that were restored.
    restored: u64,
}

impl Guest {
    /// Returns what the guest may hold in the worst case.
    fn held(&self) -> FrameCount {
        let extent = self.size.max(self.targets.largest());
        self.limits.largest().map_or(extent, |limit| limit.min(extent)).max(self.resident)
    }

    /// Returns whether the guest does as it should, for good.
    pub(super) fn is_honest(&self) -> bool {
        self.spec.character == Character::Ideal
    }

    fn step(&mut self, tick: u32) {
        if matches!(self.spec.character, Character::Stopped { from } if tick >= from) {
            return;
        }
        if let Some((at, limit)) = self.sent_limit
            && at <= tick
        {
            (self.sent_limit, self.limit) = (None, limit);
        }
        self.follow(tick);
        let most = match self.spec.character {
            Character::Lying => self.size,
            _ => self.limit.map_or(self.size, |limit| limit.min(self.size)),
        };
        // It touches all that it may, at once.
        let paged = FrameCount(self.spec.paging * HUGE_FRAMES);
        self.resident = self.resident.min(self.size).saturating_sub(paged).max(most);
    }

    fn follow(&mut self, tick: u32) {
        while let Some(&(_, target, epoch)) = self.sent.first().filter(|(at, ..)| *at <= tick) {
            self.sent.remove(0);
            (self.target, self.acknowledged) = (target, epoch);
        }
        let most = FrameCount(self.spec.rate * HUGE_FRAMES);
        let floor = match self.spec.character {
            Character::Limited => self.spec.needs(),
            Character::Stuck { from } if tick >= from => FrameCount(u64::MAX),
            Character::Lying => FrameCount(u64::MAX),
            Character::StuckAtTimes { period } if (tick / period) % 2 == 1 => FrameCount(u64::MAX),
            _ => FrameCount::ZERO,
        };
        if self.is_paused {
            return;
        }
        let size = self.size;
        // It works through all that it needs about once a second.
        self.restored += self.lacks().0 / 32;
        self.size = if size < self.target {
            size.saturating_add(most).min(self.target)
        } else {
            size.saturating_sub(most).max(self.target).max(floor.min(size))
        };
    }

    /// Returns what the guest needs and has no room for.
    pub(super) fn lacks(&self) -> FrameCount {
        self.spec.needs().saturating_sub(self.size)
    }

    fn sample(&mut self) -> GuestSample {
        self.targets.acknowledge(self.acknowledged).unwrap();
        self.limits.acknowledge(self.limit);
        let is_acknowledged = self.targets.largest() == self.scheduled && self.limits.is_acknowledged();
        let control = Control {
            limit: self.limits.largest(),
            acknowledgement: if is_acknowledged { Acknowledgement::Given } else { Acknowledgement::Awaited },
            could_run: TICK,
            means: self.spec.means,
        };
        GuestSample {
            allowed: self.targets.largest(),
            size: self.size,
            resident: self.resident,
            hints: Hints::Report(self.usage()),
            control,
        }
    }

    /// Does what is to be done about the guest; returns whether it goes on.
    fn enforce(&mut self, enforced: Option<Enforced>, tick: u32) -> bool {
        let rung = enforced.map_or(Rung::Asked, |enforced| enforced.rung);
        let is_limited = enforced.is_some_and(|enforced| enforced.is_to_be_limited());
        let can_page = matches!(self.spec.means, Means::Paging(_));
        let limit = (is_limited && can_page).then_some(self.scheduled);
        if let Some(limit) = self.limits.send(limit) {
            self.sent_limit = Some((tick + self.spec.delay, limit));
        }
        self.is_paused = rung == Rung::Paused;
        rung != Rung::Ending
    }

    fn usage(&self) -> Usage {
        let max = self.spec.limits().max;
        match self.spec.character {
            Character::ClaimsAll => Usage { used: max, wanted: max, unshrinkable: max, ..Usage::default() },
            Character::ClaimsNothing => Usage::default(),
            _ => {
                let used = self.spec.needs().min(self.size);
                let idle = FrameCount(used.0 * self.spec.idle / 100);
                let usage = Usage { used, idle, restored: self.restored, ..Usage::default() };
                if self.spec.character == Character::Swapping {
                    Usage { evicted: self.lacks(), ..usage }
                } else {
                    Usage { wanted: self.lacks(), ..usage }
                }
            }
        }
    }
}

/// A scheduler and its guests.
pub(super) struct Fleet {
    pub(super) scheduler: Scheduler,
    pub(super) guests: Vec<Guest>,
    pool: FrameCount,
    tick: u32,
}

impl Fleet {
    /// Admits the guests that the pool has room for.
    pub(super) fn new(pool_huge_frames: u64, tax: u8, specs: &[Spec]) -> Self {
        let pool = FrameCount(pool_huge_frames * HUGE_FRAMES);
        let policy = Policy { idle_tax: IdleTax::new(tax).unwrap(), ..Policy::default() };
        let mut fleet = Self { scheduler: Scheduler::new(pool, policy), guests: Vec::new(), pool, tick: 0 };
        specs.iter().for_each(|spec| fleet.admit(*spec));
        fleet
    }

    pub(super) fn admit(&mut self, spec: Spec) {
        let before = format!("{:?}", self.scheduler);
        let Ok((id, target)) = self.scheduler.admit(spec.limits(), Subscription::default()) else {
            assert_eq!(format!("{:?}", self.scheduler), before, "a refusal changes nothing");
            return;
        };
        self.guests.push(Guest {
            id,
            spec,
            targets: Targets::new(target),
            scheduled: target,
            sent: Vec::new(),
            target,
            acknowledged: Epoch::FIRST,
            size: target,
            resident: target,
            limits: ResidentLimit::default(),
            sent_limit: None,
            limit: None,
            is_paused: false,
            restored: 0,
        });
    }

    /// Lets a tick pass. Decisions are carried out one by one; meanwhile guests do what they may,
    /// and the pool is never overdrawn.
    pub(super) fn step(&mut self) -> Vec<Decision> {
        self.tick += 1;
        let tick = self.tick;
        let ended: Vec<GuestId> = self
            .guests
            .extract_if(.., |guest| matches!(guest.spec.character, Character::Crashing { at } if at == tick))
            .map(|guest| guest.id)
            .collect();
        ended.into_iter().for_each(|id| self.scheduler.remove(id));
        for guest in &mut self.guests {
            guest.step(tick);
            let sample = guest.sample();
            self.scheduler.observe(guest.id, &sample);
        }
        let now = Moment::from_ns(1).after(TICK * tick);
        let decisions = self.scheduler.decide(now);
        assert_eq!(decisions.len(), self.guests.len(), "one for each guest");
        for (index, decision) in decisions.iter().enumerate() {
            let guest = &mut self.guests[index];
            explain(decision, guest.spec.limits());
            assert_eq!(decision.guest, guest.id);
            if decision.is_change() {
                let epoch = guest.targets.set(decision.target);
                guest.scheduled = decision.target;
                guest.sent.push((tick + guest.spec.delay, decision.target, epoch));
            }
            self.guests[index / 2].step(tick);
            let held: u64 = self.guests.iter().map(|guest| guest.held().0).sum();
            assert!(held <= self.pool.0, "{held} frames are held of {}", self.pool.0);
        }
        let scheduler = &mut self.scheduler;
        self.guests.retain_mut(|guest| {
            let goes_on = guest.enforce(scheduler.enforced(guest.id), tick);
            if !goes_on {
                scheduler.remove(guest.id);
            }
            goes_on
        });
        decisions
    }

    pub(super) fn run(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.step();
        }
    }

    pub(super) fn targets(&self) -> Vec<u64> {
        self.guests.iter().map(|guest| self.scheduler.target(guest.id).unwrap().0 / HUGE_FRAMES).collect()
    }

    /// Changes a guest's limits and shares; returns whether that was accepted.
    pub(super) fn change(&mut self, index: usize, limits: Limits, shares: Shares) -> bool {
        let before = format!("{:?}", self.scheduler);
        let id = self.guests[index].id;
        let is_accepted = self.scheduler.change(id, limits, Subscription { shares, reservation: limits.min }).is_ok();
        if is_accepted {
            let spec = &mut self.guests[index].spec;
            (spec.min, spec.more) = (limits.min.0 / HUGE_FRAMES, (limits.max.0 - limits.min.0) / HUGE_FRAMES);
        } else {
            assert_eq!(format!("{:?}", self.scheduler), before, "a refusal changes nothing");
        }
        is_accepted
    }
}

/// Checks that a decision is within the limits, and that its reason and inputs explain it.
fn explain(decision: &Decision, limits: Limits) {
    let Decision { from, target, granted, reason, inputs, .. } = *decision;
    assert!(target <= limits.max && target >= limits.min.min(from), "{decision:?}");
    let fits = match reason {
        Reason::Demand | Reason::Pressure | Reason::Request | Reason::Refaults => {
            target > from && target <= inputs.entitlement
        }
        Reason::Idle | Reason::NeededElsewhere | Reason::PoolShort | Reason::FairShare | Reason::IdleTaxed => {
            target < from && target >= inputs.entitlement
        }
        Reason::LimitsChanged | Reason::Pinned => true,
        Reason::AwaitingMemory => target == from && target < inputs.entitlement,
        Reason::AtFairShare => target == from && inputs.entitlement < inputs.demand,
        Reason::Starting | Reason::Fits | Reason::Patience | Reason::Uncooperative | Reason::FixedSize => {
            target == from
        }
    };
    assert!(fits, "{decision:?}");
    assert!(granted <= inputs.free && (granted == FrameCount::ZERO || target > from), "{decision:?}");
    assert!(
        inputs.returning <= inputs.firm && inputs.firm <= inputs.demand && inputs.idle_percent <= 100,
        "{decision:?}"
    );
    assert!(!decision.reason.to_string().is_empty() && inputs.to_string().contains("the pool is"));
}
