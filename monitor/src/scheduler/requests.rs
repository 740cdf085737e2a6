//! What one guest asks for before it needs it. Pure. `docs/requests.md` describes the protocol.
//!
//! A request is a claim, and no way around shares: while it is in force it raises the guest's need
//! to the amount that it names, and entitlements follow from needs as always. So it obeys all
//! limits, and it takes nothing from what others use within their shares. Memory that was granted
//! and is not used yet counts as active: it is spoken for.
//!
//! A guest has one request of each kind. The cost of a request is constant, and each guest has an
//! allowance; so a guest that floods its host with requests loses only its own.

use std::time::Duration;

use aerostat_abi::requests::{Answer, FiledRequest, Outcome, ResourceKind, Resources, Sequence, Urgency};
use aerostat_abi::units::{FrameCount, HUGE_FRAMES};

use super::limits::Limits;
use super::need::Need;
use super::policy::huge_ceil;
use crate::clock::Moment;
use crate::token_bucket::{Allowance, TokenBucket};

/// Requests that are accepted of one guest.
const ACCEPTED: Allowance = Allowance { per_second: 8, burst: 16 };
/// How long before it is needed a request counts as need.
const LEAD: Duration = Duration::from_secs(2);
/// How long after it was needed a request stays in force.
const HOLD: Duration = Duration::from_secs(5);
/// What a grant may lack: others hold their page tables beyond their targets, so that the last huge
/// frame of a pool that is all in demand may never be free.
const TOLERANCE: FrameCount = FrameCount(HUGE_FRAMES);
/// How far ahead a guest can ask.
const MOST_AHEAD: Duration = Duration::from_secs(600);
/// How long the requests of a guest that did not use a grant count as low: at first, twice as long
/// each time, and at most, which is also for one that let a grant expire.
const LEAST_DISTRUST: Duration = Duration::from_secs(1);
const MOST_DISTRUST: Duration = Duration::from_secs(30);

/// The requests of one guest.
#[derive(Debug)]
pub(super) struct Requests {
    /// The number of the latest request of each kind.
    latest: [Sequence; ResourceKind::ALL.len()],
    answers: [Option<Answer>; ResourceKind::ALL.len()],
    /// The request for memory that is in force.
    open: Option<Open>,
    strength: Strength,
    allowance: TokenBucket,
    distrust: Distrust,
}

/// How much a guest asks for that it does not use. Memory that is moved for nothing costs others.
#[derive(Clone, Copy, Debug, Default)]
struct Distrust {
    /// Grants in a row that the guest did not use.
    wasted: u32,
    until: Option<Moment>,
}

/// A request that is in force.
#[derive(Clone, Copy, Debug)]
struct Open {
    sequence: Sequence,
    urgency: Urgency,
    /// The guest size that is asked for.
    amount: FrameCount,
    needed: Moment,
    /// What the guest used when it asked.
    used_before: FrameCount,
    /// The target when it asked.
    target_before: FrameCount,
    has_grant: bool,
}

/// How a request counts now, from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strength {
    /// As headroom.
    Soft,
    /// As memory in use.
    Firm,
    /// As memory that a thread waits for.
    Pressing,
}

/// What became of the guest that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) target: FrameCount,
    pub(super) entitlement: FrameCount,
    /// What the guest uses, or can't give up.
    pub(super) used: FrameCount,
    pub(super) limits: Limits,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            latest: Default::default(),
            answers: Default::default(),
            open: None,
            strength: Strength::Soft,
            allowance: TokenBucket::new(ACCEPTED),
            distrust: Distrust::default(),
        }
    }
}

impl Requests {
    /// Goes on from the answers that an earlier scheduler has given. What it answered for good is
    /// over. An open request is read again, and goes on as what it was.
    pub(super) fn go_on_from(&mut self, told: &Resources) {
        for kind in ResourceKind::ALL {
            let Some(answer) = told.answer(kind) else { continue };
            let is_over = answer.outcome.is_final();
            self.latest[kind.index()] = Sequence(answer.sequence.0 - u32::from(!is_over && answer.sequence.0 > 0));
            self.answers[kind.index()] = Some(answer);
        }
    }

    /// Takes a request in. One whose number does not rise was taken in before and is ignored.
    pub(super) fn file(&mut self, request: &FiledRequest, standing: Standing, now: Moment) {
        let FiledRequest { kind, sequence, urgency, amount, needed_at_ns } = *request;
        if sequence <= self.latest[kind.index()] {
            return;
        }
        self.latest[kind.index()] = sequence;
        let amount = huge_ceil(FrameCount::from_bytes_ceil(amount));
        // An earlier scheduler may have answered it.
        let known = self.answers[kind.index()].filter(|answer| answer.sequence == sequence);
        let outcome = if !self.allowance.take(now) {
            Outcome::TooMany
        } else if kind != ResourceKind::Memory {
            Outcome::NotShared
        } else {
            if let Some(replaced) = self.open.take().filter(|_| amount == FrameCount::ZERO) {
                self.distrust.note_end(&replaced, (Outcome::Withdrawn, standing.used), now);
            }
            match amount {
                FrameCount::ZERO => Outcome::Withdrawn,
                _ if amount > standing.limits.max => Outcome::BeyondMax,
                _ => Outcome::Queued,
            }
        };
        if outcome == Outcome::Queued {
            self.open = Some(Open {
                sequence,
                urgency,
                amount,
                needed: Moment::from_ns(needed_at_ns).min(now.after(MOST_AHEAD)),
                used_before: standing.used,
                target_before: standing.target,
                has_grant: known
                    .is_some_and(|answer| matches!(answer.outcome, Outcome::Granted | Outcome::PartlyGranted)),
            });
            if known.is_some() {
                return;
            }
        }
        let granted = if kind == ResourceKind::Memory { standing.target.bytes() } else { 0 };
        self.answers[kind.index()] = Some(Answer { sequence, outcome, granted });
    }

    /// Returns the need of a guest that needs `need` without its requests.
    pub(super) fn raise(&mut self, need: Need, now: Moment) -> Need {
        let Some(open) = self.open else { return need };
        let is_distrusted = self.distrust.until.is_some_and(|until| now < until);
        self.strength = if is_distrusted { Strength::Soft } else { open.strength(now) };
        let demand = need.demand.max(open.amount);
        if self.strength == Strength::Soft {
            return Need { demand, ..need };
        }
        Need { firm: need.firm.max(open.amount), demand, ..need }
    }

    /// Returns whether a request counts as a thread that waits.
    pub(super) fn is_pressing(&self) -> bool {
        self.open.is_some() && self.strength == Strength::Pressing
    }

    /// Returns whether a guest with this target lacks what it asked for, and needs it soon.
    pub(super) fn is_short_at(&self, target: FrameCount) -> bool {
        self.strength != Strength::Soft && self.asks_beyond(target)
    }

    /// Returns whether a request asks for more than `used`.
    pub(super) fn asks_beyond(&self, used: FrameCount) -> bool {
        self.open.is_some_and(|open| open.amount > used)
    }

    /// Brings the answer up to date, once the guest's target is decided.
    pub(super) fn settle(&mut self, standing: Standing, now: Moment) {
        let Some(open) = &mut self.open else { return };
        let outcome = open.outcome(standing, self.strength, now);
        open.has_grant |= matches!(outcome, Outcome::Granted | Outcome::PartlyGranted);
        let sequence = open.sequence;
        if outcome.is_final()
            && let Some(ended) = self.open.take()
        {
            self.distrust.note_end(&ended, (outcome, standing.used), now);
        }
        let place = &mut self.answers[ResourceKind::Memory.index()];
        // A later request that was refused has an answer of its own.
        if place.is_none_or(|answer| answer.sequence == sequence) {
            let granted = match outcome {
                Outcome::Granted | Outcome::PartlyGranted | Outcome::AtFairShare => standing.target.bytes(),
                _ => place.map_or(0, |answer| answer.granted),
            };
            // While the outcome is the same, a larger grant is news and a smaller one is not: the
            // guest sees its target.
            if place.is_none_or(|answer| answer.outcome != outcome || answer.granted < granted) {
                *place = Some(Answer { sequence, outcome, granted });
            }
        }
    }

    /// Returns the answers to the latest requests.
    pub(super) fn answers(&self) -> impl Iterator<Item = (ResourceKind, Answer)> {
        let answers = ResourceKind::ALL.into_iter().zip(self.answers);
        answers.filter_map(|(kind, answer)| Some((kind, answer?)))
    }
}

impl Distrust {
    /// Notes that a request is no longer in force, of a guest that uses `used` now.
    fn note_end(&mut self, ended: &Open, (outcome, used): (Outcome, FrameCount), now: Moment) {
        // Low urgency takes nothing that another guest needs.
        if !ended.has_grant || ended.urgency == Urgency::Low {
            return;
        }
        if ended.is_half_used(used) {
            self.wasted = 0;
            return;
        }
        let length = match outcome {
            Outcome::Expired => MOST_DISTRUST,
            _ => LEAST_DISTRUST.saturating_mul(1 << self.wasted.min(8)).min(MOST_DISTRUST),
        };
        self.until = Some(now.after(length));
        self.wasted = self.wasted.saturating_add(1);
    }
}

impl Open {
    fn strength(&self, now: Moment) -> Strength {
        let is_near = self.needed <= now.after(LEAD);
        match self.urgency {
            Urgency::Low => Strength::Soft,
            Urgency::Normal if !is_near => Strength::Soft,
            Urgency::High if is_near => Strength::Pressing,
            Urgency::Normal | Urgency::High => Strength::Firm,
        }
    }

    fn outcome(&self, standing: Standing, strength: Strength, now: Moment) -> Outcome {
        let Standing { target, entitlement, used, limits } = standing;
        let is_settled = target >= entitlement.min(self.amount);
        if self.amount > limits.max {
            Outcome::BeyondMax
        } else if self.is_used(used) {
            Outcome::Used
        } else if now >= self.needed.after(HOLD) {
            if self.has_grant { Outcome::Expired } else { Outcome::Late }
        } else if target.saturating_add(TOLERANCE) >= self.amount {
            Outcome::Granted
        } else if is_settled && (strength != Strength::Soft || now >= self.needed) {
            if target > self.target_before { Outcome::PartlyGranted } else { Outcome::AtFairShare }
        } else {
            Outcome::Queued
        }
    }

    /// Returns whether the guest uses what it asked for, but for an eighth.
    fn is_used(&self, used: FrameCount) -> bool {
        let asked = self.amount.saturating_sub(self.used_before);
        used >= FrameCount(self.amount.0 - asked.0 / 8)
    }

    fn is_half_used(&self, used: FrameCount) -> bool {
        let asked = self.amount.saturating_sub(self.used_before);
        used.saturating_sub(self.used_before).0 >= asked.0 / 2
    }
}

#[cfg(test)]
mod tests;
