//! What observers see of a guest that ignores its target.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use crate::clock::Moment;
use crate::scheduler::{Cause, Enforced, Rung};

/// What was done in a run about a guest that ignored its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnforcementTotals {
    /// How often the guest was confined.
    pub episodes: u64,
    /// How long it was.
    pub confined: Duration,
    /// The most of its memory that was paged out by the host at one time, while it was confined.
    pub peak_paged_out: FrameCount,
    /// Memory that the host has paged out, and back in.
    pub paged_out: FrameCount,
    /// Memory that the host has paged in.
    pub paged_in: FrameCount,
    /// How often the guest was paused.
    pub pauses: u64,
    /// How often its process was squeezed from outside.
    pub squeezes: u64,
}

/// A guest that is larger than its target, and what is done about it. Moments are counted from the
/// begin of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnforcementStatus {
    /// Since when it is.
    pub since: Duration,
    /// By how much.
    pub withheld: FrameCount,
    /// How far the host has gone.
    pub rung: Rung,
    /// Since when.
    pub rung_since: Duration,
    /// Why.
    pub cause: Cause,
    /// What follows, and after how much more time in which the guest can run and makes no progress.
    pub next: Option<(Rung, Duration)>,
}

impl EnforcementStatus {
    /// Returns the status in a run that began at `began`.
    pub(super) fn new(enforced: Enforced, began: Moment) -> Self {
        let Enforced { since, withheld, rung, rung_since, cause, next } = enforced;
        let (since, rung_since) = (since.since(began), rung_since.since(began));
        Self { since, withheld, rung, rung_since, cause, next }
    }
}
