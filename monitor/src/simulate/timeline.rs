//! What a plot needs of a run: who had how much when, and how many guests stood still.

use std::time::Duration;

use aerostat_abi::units::FrameCount;

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
    /// The part of all guests that stood still since the last moment, 0 to 1.
    pub stalled: f64,
}

/// One guest in one tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lived {
    pub(super) group: usize,
    pub(super) resident: FrameCount,
    pub(super) stall_share: f64,
}

impl Timeline {
    pub(super) fn new(duration: Duration, tick: Duration) -> Self {
        let ticks = duration.as_nanos() / tick.as_nanos().max(1);
        let stride = u32::try_from(ticks.div_ceil(MOST_MOMENTS)).unwrap_or(u32::MAX).max(1);
        Self { interval: tick * stride, next: Duration::ZERO, moments: Vec::new() }
    }

    /// Notes what became of all guests in the tick that ends at `elapsed`.
    pub(super) fn record(&mut self, elapsed: Duration, groups: usize, guests: &[Lived]) {
        if elapsed < self.next {
            return;
        }
        self.next = elapsed + self.interval;
        let mut resident = vec![FrameCount::ZERO; groups];
        for guest in guests {
            resident[guest.group] = resident[guest.group].saturating_add(guest.resident);
        }
        let stalled = guests.iter().map(|guest| guest.stall_share).sum::<f64>() / guests.len().max(1) as f64;
        self.moments.push(Snapshot { elapsed, resident, stalled });
    }
}
