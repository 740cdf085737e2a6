//! What happened to a guest last, in a line.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::words::amount;
use super::{is_up, reserved};
use crate::scheduler::Reason;
use crate::supervisor::{DecisionStatus, FleetStatus, GuestState, GuestStatus};

/// Returns what happened to `guest` last.
pub(super) fn summary(status: &FleetStatus, guest: &GuestStatus, time_of: &dyn Fn(Duration) -> String) -> String {
    if !is_up(guest) {
        return without_process(status, guest, time_of);
    }
    let Some((at, change)) = &guest.last_change else {
        let target = amount(guest.target);
        return match &guest.decision {
            Some(decision) => format!("has kept its first target of {target}: {}", decision.reason),
            None => format!("has its first target of {target}: it has not reported yet"),
        };
    };
    let time = time_of(*at);
    let DecisionStatus { from, to, reason, inputs, .. } = change;
    let reserved = match reserved(guest).min(*to) {
        FrameCount::ZERO => "none".to_owned(),
        reserved => amount(reserved),
    };
    if to < from {
        let less = amount(from.saturating_sub(*to));
        let cause = cause(change);
        let tax = match reason {
            Reason::NeededElsewhere | Reason::FairShare | Reason::IdleTaxed => {
                format!(", tax {} %", status.idle_tax.percent())
            }
            _ => String::new(),
        };
        let idle = inputs.idle_percent;
        format!(
            "shrunk by {less} at {time}: {cause}; this guest is {idle} % idle{tax}; it keeps {}, {reserved} of it reserved",
            amount(*to)
        )
    } else {
        let more = amount(to.saturating_sub(*from));
        format!("grown by {more} at {time}: {reason}; it may have {} now, {reserved} of it reserved", amount(*to))
    }
}

/// Returns why a guest was shrunk, with the guest that it was shrunk for.
fn cause(change: &DecisionStatus) -> String {
    let other = change.in_need.as_deref().zip(change.inputs.in_need);
    match (change.reason, other.map(|(name, other)| asked(name, other.missing))) {
        (Reason::NeededElsewhere, Some(asked)) => asked,
        (Reason::FairShare, Some(asked)) => {
            format!("{asked}, and this guest was above its fair share of a pool that is all in demand")
        }
        (Reason::IdleTaxed, Some(asked)) => format!("{asked}, and {}", change.reason),
        (reason, _) => reason.to_string(),
    }
}

/// Returns what another guest asked for: what it lacked when this was decided.
fn asked(name: &str, missing: FrameCount) -> String {
    match missing {
        FrameCount::ZERO => format!("{name} was short of memory"),
        missing => format!("{name} asked for {}", amount(missing)),
    }
}

/// Returns why a guest has no process.
fn without_process(status: &FleetStatus, guest: &GuestStatus, time_of: &dyn Fn(Duration) -> String) -> String {
    let until = guest.service.until.map(time_of);
    let ending = guest.ending.as_deref().unwrap_or("it was not started");
    match guest.state {
        GuestState::Queued => {
            let min = amount(guest.limits.min);
            let until = until.map_or(String::new(), |until| format!(" until {until}"));
            format!("waits{until} to start: its min of {min} must be free, and {} of the pool is", amount(status.free))
        }
        GuestState::BackingOff => {
            let until = until.unwrap_or_else(|| "soon".to_owned());
            format!("starts again at {until}, as its restart rule is {}: {ending}", guest.service.restart)
        }
        GuestState::Ended => format!("does not run: {ending}"),
        _ => "does not run: it was not started".to_owned(),
    }
}
