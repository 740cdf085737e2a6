//! What a plot needs of a run: who had how much when, and how many guests stood still.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

use super::guest::SimulatedGuest;
use super::trace::Group;

/// The most moments that are kept: more than a plot has columns.
const MOST_MOMENTS: u128 = 600;

/// Moments of a run, at equal intervals.
#[derive(Clone, Debug)]
pub struct Timeline {
    interval: Duration,
    next: Duration,
    /// The moments.
    pub moments: Vec<Snapshot>,
}

/// A fleet at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time since the run began.
    pub elapsed: Duration,
    /// The resident memory of each group.
    pub resident: Vec<FrameCount>,
    /// The part of all guests that stood still in the tick that ended then, 0 to 1.
    pub stalled: f64,
}

impl Timeline {
    pub(super) fn new(duration: Duration, tick: Duration) -> Self {
        let ticks = duration.as_nanos() / tick.as_nanos().max(1);
        let stride = u32::try_from(ticks.div_ceil(MOST_MOMENTS)).unwrap_or(u32::MAX).max(1);
        Self { interval: tick * stride, next: Duration::ZERO, moments: Vec::new() }
    }

    /// Keeps the state of all `guests` at `elapsed` if the next moment is due. They are in the
    /// order of `groups`.
    pub(super) fn record(&mut self, elapsed: Duration, groups: &[Group], guests: &[SimulatedGuest]) {
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + self.interval;
        let mut rest = guests;
        let resident = groups.iter().map(|group| {
            let (of_group, others) = rest.split_at(group.guests.len());
            rest = others;
            of_group.iter().fold(FrameCount::ZERO, |sum, guest| sum.saturating_add(guest.resident))
        });
        let resident = resident.collect();
        let stalled = guests.iter().map(SimulatedGuest::stall_share).sum::<f64>() / guests.len().max(1) as f64;
        self.moments.push(Snapshot { elapsed, resident, stalled });
    }
}
