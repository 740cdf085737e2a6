//! The balancing of Qubes' `qmemman`.
//!
//! Source: `qubes/qmemman/algo.py` of qubes-core-admin. A guest prefers 1.3 times what it uses.
//! With enough memory for all preferences, the rest is distributed in proportion to them. With too
//! little, guests above their preference fall to it, and what is free then is distributed among the
//! others. Changes of less than 15 MiB in need and less than 150 MiB in all are not carried out, as
//! in `systemstate.py`. The preference of at least 200 MiB is meant for desktops; here it is the
//! guest's minimum.

use aerostat_abi::units::FrameCount;

use super::{Observed, Rule};
use crate::clock::Moment;
use crate::simulate::scaled;

const CACHE_FACTOR: f64 = 1.3;
/// Guests this close to their preference give nothing.
const LEAST_DONATION: FrameCount = FrameCount::from_mib(10);
/// A balance is carried out if it moves this much, or if a guest below its preference gets this
/// much.
const LEAST_TRANSFER: FrameCount = FrameCount::from_mib(150);
const LEAST_RAISE_IN_NEED: FrameCount = FrameCount::from_mib(15);

/// The rules for a host of this size.
#[derive(Debug)]
pub struct Qmemman {
    /// The memory to share.
    pub pool: FrameCount,
}

impl Rule for Qmemman {
    fn name(&self) -> &'static str {
        "qmemman"
    }

    fn decide(&mut self, guests: &[Observed], _: Moment) -> Vec<FrameCount> {
        let preferences: Vec<FrameCount> = guests.iter().map(preference).collect();
        let total = sum(preferences.iter().copied());
        let targets = if total <= self.pool {
            with_enough(self.pool.saturating_sub(total), total, guests, &preferences)
        } else {
            let free = self.pool.saturating_sub(sum(guests.iter().map(|guest| guest.sample.size)));
            with_too_little(free, guests, &preferences)
        };
        if is_worth_it(guests, &preferences, &targets) {
            targets
        } else {
            guests.iter().map(|guest| guest.target).collect()
        }
    }
}

fn preference(guest: &Observed) -> FrameCount {
    let preferred = scaled(guest.usage().used, CACHE_FACTOR);
    preferred.max(guest.limits.min).min(guest.limits.max)
}

/// Distributes `rest` on top of all preferences, in proportion to them.
fn with_enough(
    mut rest: FrameCount,
    total: FrameCount,
    guests: &[Observed],
    preferences: &[FrameCount],
) -> Vec<FrameCount> {
    let scale = 1.0 + rest.0 as f64 / total.0.max(1) as f64;
    let wished = preferences.iter().map(|preferred| scaled(*preferred, scale));
    let mut targets: Vec<FrameCount> =
        guests.iter().zip(wished).map(|(guest, wish)| wish.min(guest.limits.max)).collect();
    // What guests at their maximum leave goes to the others in equal parts.
    loop {
        rest = rest.saturating_add(total).saturating_sub(sum(targets.iter().copied()));
        let acceptors =
            guests.iter().zip(&targets).filter(|(guest, target)| **target < guest.limits.max).count() as u64;
        let Some(bonus) = rest.0.checked_div(acceptors).filter(|bonus| *bonus > 0) else { return targets };
        for (guest, target) in guests.iter().zip(&mut targets) {
            *target = target.saturating_add(FrameCount(bonus)).min(guest.limits.max);
        }
        rest = FrameCount::ZERO;
    }
}

/// Lowers guests above their preference to it, and distributes what is free then among the others.
fn with_too_little(free: FrameCount, guests: &[Observed], preferences: &[FrameCount]) -> Vec<FrameCount> {
    let gives = |guest: &Observed, preferred: FrameCount| guest.sample.size.saturating_sub(preferred) >= LEAST_DONATION;
    let accepts = |guest: &Observed, preferred: FrameCount| guest.sample.size < preferred;
    let with_preferences = || guests.iter().zip(preferences.iter().copied());
    let donated = sum(with_preferences()
        .filter(|&(guest, preferred)| gives(guest, preferred))
        .map(|(guest, preferred)| guest.sample.size.saturating_sub(preferred)));
    let accepted =
        sum(with_preferences().filter(|&(guest, preferred)| accepts(guest, preferred)).map(|(_, preferred)| preferred));
    let available = free.saturating_add(donated);
    with_preferences()
        .map(|(guest, preferred)| {
            if gives(guest, preferred) {
                preferred
            } else if accepts(guest, preferred) {
                let part = scaled(available, preferred.0 as f64 / accepted.0 as f64);
                guest.sample.size.saturating_add(part).min(guest.limits.max)
            } else {
                guest.target
            }
        })
        .collect()
}

fn is_worth_it(guests: &[Observed], preferences: &[FrameCount], targets: &[FrameCount]) -> bool {
    let change = |(guest, target): (&Observed, &FrameCount)| FrameCount(guest.target.0.abs_diff(target.0));
    let transfer = sum(guests.iter().zip(targets).map(change));
    let helps_in_need = guests.iter().zip(preferences).zip(targets).any(|((guest, preferred), target)| {
        guest.target < *preferred && target.saturating_sub(guest.target) > LEAST_RAISE_IN_NEED
    });
    transfer > LEAST_TRANSFER || helps_in_need
}

fn sum(counts: impl Iterator<Item = FrameCount>) -> FrameCount {
    counts.fold(FrameCount::ZERO, FrameCount::saturating_add)
}
