//! The ballooning rules of oVirt's Memory Overcommitment Manager.
//!
//! Source: `doc/balloon.rules` of MOM. Every ten seconds (the default of its policy engine) all
//! guests shrink by at most 5 % where less than 20 % of the host is free, else grow by at most 5 %.
//! A guest that shrinks keeps what it uses and a part of its size, the smaller the less is free; a
//! guest that grows gets what it uses and 20 % at once. The published file bounds sizes from below
//! by the *smaller* of that and the configured minimum; taken here is the larger, as deployments
//! do.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::{Observed, Rule};
use crate::clock::Moment;
use crate::simulate::scaled;

const INTERVAL: Duration = Duration::from_secs(10);
/// Below this free part of the host, guests shrink.
const PRESSURE_THRESHOLD: f64 = 0.20;
/// Below this one, they are forced to swap.
const PRESSURE_CRITICAL: f64 = 0.05;
/// The free part that a guest should have while the host is not under pressure.
const MIN_GUEST_FREE: f64 = 0.20;
/// The largest change, and the smallest that is carried out, as parts of the guest's size.
const MAX_CHANGE: f64 = 0.05;
const MIN_CHANGE: f64 = 0.0025;

/// The rules with the moment of their last use.
#[derive(Debug)]
pub struct Mom {
    pool: FrameCount,
    last: Option<Moment>,
}

impl Mom {
    /// Creates the rules for a host of `pool`.
    #[must_use]
    pub fn new(pool: FrameCount) -> Self {
        Self { pool, last: None }
    }
}

impl Rule for Mom {
    fn name(&self) -> &'static str {
        "MOM"
    }

    fn decide(&mut self, guests: &[Observed], now: Moment) -> Vec<FrameCount> {
        if self.last.is_some_and(|last| now.since(last) < INTERVAL) {
            return guests.iter().map(|guest| guest.target).collect();
        }
        self.last = Some(now);
        let resident = guests.iter().fold(FrameCount::ZERO, |sum, guest| sum.saturating_add(guest.sample.resident));
        let host_free = self.pool.saturating_sub(resident).0 as f64 / self.pool.0 as f64;
        guests.iter().map(|guest| next_size(guest, host_free)).collect()
    }
}

fn next_size(guest: &Observed, host_free: f64) -> FrameCount {
    let current = guest.sample.size;
    let used = guest.usage().used;
    let must_shrink = host_free < PRESSURE_THRESHOLD;
    let (guest_free, step) = if !must_shrink {
        (MIN_GUEST_FREE, 1.0 + MAX_CHANGE)
    } else if host_free <= PRESSURE_CRITICAL {
        (host_free - PRESSURE_CRITICAL, 1.0 - MAX_CHANGE)
    } else {
        (MIN_GUEST_FREE * host_free / PRESSURE_THRESHOLD, 1.0 - MAX_CHANGE)
    };
    let least = used.saturating_add(scaled(current, guest_free)).max(guest.limits.min);
    let size = scaled(current, step).max(least).min(guest.limits.max);
    let is_in_direction = !must_shrink || size <= current;
    let is_large_enough = size.0.abs_diff(current.0) > scaled(current, MIN_CHANGE).0;
    if is_in_direction && is_large_enough { size } else { guest.target }
}
