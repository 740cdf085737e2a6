//! Why a guest has the size that it has: the text of `aerostat explain`. Pure over a status.
//!
//! The summary says what happened to the guest last. Where the guest lacks memory, the details name
//! the guests that hold memory, each with the rule under which it does (`holder.rs`), and the
//! remedies say what would change it.

mod holder;
mod remedy;
mod summary;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use self::holder::{Holder, holders};
use self::remedy::remedies;
use self::summary::summary;
use self::words::amount;
use super::api::Explanation;
use super::view::state;
use crate::scheduler::{PoolState, Reason, Rung};
use crate::supervisor::{DecisionStatus, EnforcementStatus, FleetStatus, GuestStatus};

/// Guests that are named as holders of memory.
const MOST_HOLDERS: usize = 5;

/// What a guest lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// Nothing, or no more than the scheduler considers noise.
    Nothing,
    /// So much, and it can't have more than its maximum.
    AboveMax(FrameCount),
    /// So much below what a user fixed its target at, or above it.
    Fixed(FrameCount),
    /// So much, because the pool has no more for it.
    OfPool(FrameCount),
}

/// Explains the size of a guest. `time_of` formats a moment since the run began. Returns `None`
/// where the fleet has no such guest.
pub(super) fn explain(status: &FleetStatus, name: &str, time_of: &dyn Fn(Duration) -> String) -> Option<Explanation> {
    let guest = status.guests.iter().find(|guest| guest.name == name)?;
    let lack = lack(guest);
    let holders = match lack {
        Lack::OfPool(_) => holders(status, guest),
        Lack::Nothing | Lack::AboveMax(_) | Lack::Fixed(_) => Vec::new(),
    };
    Some(Explanation {
        guest: guest.name.clone(),
        summary: summary(status, guest, time_of),
        details: details(status, guest, (lack, &holders), time_of),
        remedies: remedies(status, guest, lack, &holders),
    })
}

/// Returns what a guest lacks, and why.
fn lack(guest: &GuestStatus) -> Lack {
    let Some(DecisionStatus { inputs, reason, .. }) = guest.decision.as_ref().filter(|_| is_up(guest)) else {
        return Lack::Nothing;
    };
    let wanted = guest.wanted.max(inputs.demand.saturating_sub(guest.target));
    if guest.wanted > FrameCount::ZERO && guest.target >= guest.limits.max {
        return Lack::AboveMax(guest.wanted);
    }
    if let Some(pinned) = guest.service.pinned.filter(|_| *reason != Reason::Uncooperative) {
        let below = pinned.saturating_sub(guest.target);
        return match below {
            FrameCount::ZERO if wanted > FrameCount::ZERO => Lack::Fixed(wanted),
            FrameCount::ZERO => Lack::Nothing,
            below => Lack::OfPool(below),
        };
    }
    let is_held_back =
        matches!(reason, Reason::AtFairShare | Reason::FairShare | Reason::IdleTaxed | Reason::AwaitingMemory);
    let is_waiting = guest.wanted > FrameCount::ZERO && guest.target <= guest.size;
    if wanted > FrameCount::ZERO && (is_held_back || is_waiting) { Lack::OfPool(wanted) } else { Lack::Nothing }
}

/// Returns whether a guest has been larger than its target for longer than its balloon takes, or is
/// confined.
fn is_worth_telling(enforcement: &EnforcementStatus, elapsed: Duration) -> bool {
    enforcement.rung != Rung::Asked || elapsed.saturating_sub(enforcement.since) > Duration::from_secs(2)
}

/// Returns what the summary follows from.
fn details(
    status: &FleetStatus,
    guest: &GuestStatus,
    (lack, holders): (Lack, &[Holder<'_>]),
    time_of: &dyn Fn(Duration) -> String,
) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(decision) = guest.decision.as_ref().filter(|_| is_up(guest)) else { return lines };
    let DecisionStatus { inputs, reason, .. } = decision;
    lines.push(format!(
        "now: its target is {}, and {reason}; it uses {}, {} % of it idle, would like {} and is entitled to {}",
        amount(guest.target),
        amount(inputs.firm),
        inputs.idle_percent,
        amount(inputs.demand),
        amount(inputs.entitlement)
    ));
    lines.extend(guest.enforcement.as_ref().filter(|seen| is_worth_telling(seen, status.elapsed)).map(|enforcement| {
        let paged_out = guest.paged_out.filter(|&out| out > FrameCount::ZERO);
        let paged_out = paged_out.map_or(String::new(), |out| format!("; {} of it are paged out", amount(out)));
        format!("since {}: {}{paged_out}", time_of(enforcement.since), words::done(enforcement))
    }));
    if guest.wanted > FrameCount::ZERO {
        lines.push(format!("threads in it wait for {}", amount(guest.wanted)));
    }
    match lack {
        Lack::Nothing => return lines,
        Lack::AboveMax(more) => {
            lines.push(format!("it lacks {}: it has its max of {}", amount(more), amount(guest.limits.max)));
            return lines;
        }
        Lack::Fixed(more) => {
            lines.push(format!("it lacks {}: a user has fixed its target at {}", amount(more), amount(guest.target)));
            return lines;
        }
        Lack::OfPool(more) => lines.push(format!(
            "it lacks {}: {} of the pool of {} is free{}",
            amount(more),
            amount(status.free),
            amount(status.pool),
            if inputs.pool == PoolState::High { String::new() } else { format!(" (state {})", inputs.pool) }
        )),
    }
    lines.extend(holders.iter().take(MOST_HOLDERS).map(|holder| holder.line(guest)));
    if let Some(others) = holders.len().checked_sub(MOST_HOLDERS).filter(|&others| others > 0) {
        let rest = holders[MOST_HOLDERS..].iter().map(|holder| holder.held);
        let rest = rest.fold(FrameCount::ZERO, FrameCount::saturating_add);
        lines.push(format!("{others} more guests hold {}", amount(rest)));
    }
    lines
}

fn is_up(guest: &GuestStatus) -> bool {
    state(guest.state).is_up()
}

/// Returns what a guest gets whenever it can use it.
fn reserved(guest: &GuestStatus) -> FrameCount {
    guest.limits.min.max(guest.subscription.reservation).min(guest.limits.max)
}

/// Returns the pool memory that a guest holds.
fn held(guest: &GuestStatus) -> FrameCount {
    guest.target.max(guest.size).max(guest.resident)
}
