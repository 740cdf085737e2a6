//! Who holds the memory of a pool, and under which rule.

use std::cmp::Reverse;

use aerostat_abi::units::FrameCount;

use super::words::{self, amount};
use super::{held, is_up, reserved};
use crate::scheduler::{Reason, Rung};
use crate::supervisor::{FleetStatus, GuestStatus};

/// A guest that holds memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    pub(super) guest: &'a GuestStatus,
    pub(super) held: FrameCount,
    pub(super) rule: Rule,
}

/// Why a guest keeps what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A user fixed its target.
    Pinned,
    /// It does not follow its target, and nothing is or can be done about it.
    Uncooperative,
    /// It does not follow its target, and the host does something about it.
    Confined,
    /// It holds no more than its minimum.
    Min,
    /// It holds no more than its reservation.
    Reservation,
    /// It is releasing memory.
    Releasing,
    /// It uses the memory, and its shares entitle it to that.
    Shares,
}

/// Returns the other guests that hold memory, the largest first.
pub(super) fn holders<'a>(status: &'a FleetStatus, guest: &GuestStatus) -> Vec<Holder<'a>> {
    let others = status.guests.iter().filter(|other| other.name != guest.name && is_up(other));
    let mut holders: Vec<_> = others.map(Holder::new).filter(|holder| holder.held > FrameCount::ZERO).collect();
    holders.sort_by_key(|holder| Reverse(holder.held));
    holders
}

impl<'a> Holder<'a> {
    fn new(guest: &'a GuestStatus) -> Self {
        let held = held(guest);
        Self { guest, held, rule: Rule::of(guest, held) }
    }

    /// Describes the holder to `lacking`, which lacks memory.
    pub(super) fn line(&self, lacking: &GuestStatus) -> String {
        let Self { guest, held, rule } = self;
        let why = match rule {
            Rule::Pinned => format!("a user has fixed its target at {}", amount(guest.target)),
            Rule::Uncooperative => {
                format!("it does not follow its target of {} (uncooperative)", amount(guest.target))
            }
            Rule::Confined => guest.enforcement.as_ref().map(words::done).unwrap_or_default(),
            Rule::Min => format!("its min is {}", amount(guest.limits.min)),
            Rule::Reservation => format!("its reservation is {}", amount(guest.subscription.reservation)),
            Rule::Releasing => format!("it is releasing {}", amount(held.saturating_sub(guest.target))),
            Rule::Shares => {
                let (shares, mine) = (guest.subscription.shares.count(), lacking.subscription.shares.count());
                let idle = guest.decision.as_ref().map_or(0, |decision| decision.inputs.idle_percent);
                format!("{idle} % of it idle, under its {shares} shares; this guest has {mine}")
            }
        };
        format!("{} holds {}: {why}", guest.name, amount(*held))
    }
}

impl Rule {
    fn of(guest: &GuestStatus, held: FrameCount) -> Self {
        let is_uncooperative = guest.decision.as_ref().is_some_and(|latest| latest.reason == Reason::Uncooperative);
        let is_confined = guest.enforcement.is_some_and(|enforcement| enforcement.rung != Rung::Asked);
        if is_confined && held > guest.target {
            Self::Confined
        } else if is_uncooperative {
            Self::Uncooperative
        } else if guest.service.pinned.is_some() {
            Self::Pinned
        } else if held <= guest.limits.min {
            Self::Min
        } else if held <= reserved(guest) {
            Self::Reservation
        } else if held > guest.target {
            Self::Releasing
        } else {
            Self::Shares
        }
    }
}
