//! What would give a guest the memory that it lacks.

use aerostat_abi::units::FrameCount;

use super::Lack;
use super::holder::{Holder, Rule};
use super::words::{amount, argument};
use crate::scheduler::Shares;
use crate::supervisor::{FleetStatus, GuestStatus};

/// Returns what would change what `guest` lacks, a line each, the cheapest first.
pub(super) fn remedies(status: &FleetStatus, guest: &GuestStatus, lack: Lack, holders: &[Holder<'_>]) -> Vec<String> {
    let name = &guest.name;
    match lack {
        Lack::Nothing => Vec::new(),
        Lack::Fixed(_) => vec![format!("`aerostat target {name} auto` leaves its target to the scheduler")],
        Lack::AboveMax(more) => vec![raise_max(guest, more)],
        Lack::OfPool(more) => {
            let mut lines = Vec::new();
            let mut add = |line: Option<String>| lines.extend(line);
            add(raise_shares(guest, holders));
            for rule in [Rule::Pinned, Rule::Uncooperative, Rule::Confined, Rule::Reservation, Rule::Min] {
                // The largest holder under the rule comes first.
                add(holders.iter().find(|holder| holder.rule == rule).and_then(release));
            }
            let pool = argument(status.pool.saturating_add(more));
            add(Some(format!("`aerostat pool {pool}` enlarges the pool by what it lacks")));
            lines
        }
    }
}

fn raise_max(guest: &GuestStatus, more: FrameCount) -> String {
    let (name, max) = (&guest.name, guest.limits.max.saturating_add(more));
    let argument = argument(max);
    if max > guest.machine {
        let machine = amount(guest.machine);
        format!("stop it and `aerostat set {name} --max {argument}`: the machine that it runs on has {machine}")
    } else {
        format!("`aerostat set {name} --max {argument}` lets it grow")
    }
}

/// Proposes more shares where another guest holds memory by its shares.
fn raise_shares(guest: &GuestStatus, holders: &[Holder<'_>]) -> Option<String> {
    let shares = guest.subscription.shares.count();
    let other = holders.iter().find(|holder| matches!(holder.rule, Rule::Shares | Rule::Releasing))?;
    let more = shares.saturating_mul(2).min(Shares::MOST);
    let (name, other) = (&guest.name, &other.guest.name);
    (more > shares).then(|| format!("`aerostat set {name} --shares {more}` gives it a larger part than {other}"))
}

/// Proposes how a guest would release what it holds under its rule.
fn release(holder: &Holder<'_>) -> Option<String> {
    let name = &holder.guest.name;
    match holder.rule {
        Rule::Pinned => Some(format!("`aerostat target {name} auto` lets {name} shrink to what it needs")),
        Rule::Uncooperative | Rule::Confined => Some(format!(
            "`aerostat inspect {name}` shows why {name} does not shrink, and `aerostat restart {name}` frees what it holds"
        )),
        Rule::Reservation => Some(format!(
            "`aerostat set {name} --reservation {}` lets {name} shrink to its min",
            argument(holder.guest.limits.min)
        )),
        Rule::Min => Some(format!("a lower min lets {name} shrink: `aerostat set {name} --min SIZE`")),
        Rule::Releasing | Rule::Shares => None,
    }
}
