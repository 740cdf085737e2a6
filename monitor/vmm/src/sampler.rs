//! What the main thread does at intervals: it measures resident memory and drains the serial ring.
//!
//! A sample costs some 20 us, so a guest that sleeps is sampled less and less often. Memory that
//! goes back to the host is measured at once in any case ([`super::process_host`]).

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use aerostat_link::clock::Moment;

use super::balloon::Balloon;
use super::console::Console;
use super::lock::lock;
use super::process_host::ProcessHost;
use super::resident::ResidentMeter;
use super::shared_registers::SharedRegisters;

/// The time to the next sample: while memory changes, and at most.
const LIVELY: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(320);

/// Takes samples and publishes them.
#[derive(Debug)]
pub(super) struct Sampler {
    console: Arc<Mutex<Console>>,
    balloon: Arc<Mutex<Balloon<ProcessHost>>>,
    meter: Arc<ResidentMeter>,
    registers: Arc<SharedRegisters>,
    pace: Pace,
}

impl Sampler {
    pub(super) fn new(
        console: Arc<Mutex<Console>>,
        balloon: Arc<Mutex<Balloon<ProcessHost>>>,
        meter: Arc<ResidentMeter>,
        registers: Arc<SharedRegisters>,
    ) -> Self {
        Self { console, balloon, meter, registers, pace: Pace::new() }
    }

    /// Takes a sample; returns the time to the next one.
    pub(super) fn sample(&mut self) -> io::Result<Duration> {
        self.drain_console();
        let resident = self.publish_resident()?;
        self.meter.publish_page_tables(&self.registers.page(), resident)?;
        Ok(self.pace.next(resident))
    }

    fn drain_console(&self) {
        let mut console = lock(&self.console);
        console.drain(Moment::now());
        self.registers.page().set_dropped_lines(console.dropped_lines());
    }

    fn publish_resident(&self) -> io::Result<FrameCount> {
        // Otherwise, what is released between the measurement and its publication would be missing
        // in what is published.
        let _no_call = lock(&self.balloon);
        self.meter.publish(&self.registers.page())
    }
}

/// How long the main thread may sleep between samples. Pure.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    last: FrameCount,
}

impl Pace {
    const fn new() -> Self {
        Self { interval: LIVELY, last: FrameCount::ZERO }
    }

    /// Returns the time to the next sample, after one that measured `resident`.
    fn next(&mut self, resident: FrameCount) -> Duration {
        self.interval = if resident == self.last { CALM.min(2 * self.interval) } else { LIVELY };
        self.last = resident;
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::{CALM, LIVELY, Pace};
    use aerostat_abi::units::FrameCount;

    #[test]
    fn a_guest_whose_memory_does_not_change_is_sampled_less_often() {
        let mut pace = Pace::new();
        assert_eq!(pace.next(FrameCount(1)), LIVELY);
        let intervals: Vec<_> = (0..6).map(|_| pace.next(FrameCount(1))).collect();
        assert_eq!(intervals, [2 * LIVELY, 4 * LIVELY, 8 * LIVELY, CALM, CALM, CALM]);
        assert_eq!(pace.next(FrameCount(2)), LIVELY);
    }
}
