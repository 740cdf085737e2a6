//! The log of all events, target changes with their reasons included.
//!
//! Guests cause target changes by what they request, at any rate. Therefore no more of these are
//! listed than [`TARGETS`] allows, and the log says where some are missing and how many.

use super::{Output, printable};
use crate::clock::Moment;
use crate::supervisor::{Event, EventKind, FleetStatus, Observer, seconds};
use crate::token_bucket::{Allowance, TokenBucket};

/// Target changes that are listed: two or three hundred bytes each.
const TARGETS: Allowance = Allowance { per_second: 100, burst: 20_000 };

/// A log with a line for each event.
#[derive(Debug)]
pub struct EventLog<O> {
    output: O,
    targets: TokenBucket,
    /// Target changes since the last line that are not listed.
    dropped: u64,
}

impl<O: Output> EventLog<O> {
    /// Creates a log that is written to `output`.
    pub fn new(output: O) -> Self {
        Self { output, targets: TokenBucket::new(TARGETS), dropped: 0 }
    }
}

impl<O: Output> Observer for EventLog<O> {
    fn on_event(&mut self, event: &Event) {
        let is_target = matches!(event.what, EventKind::Target { .. });
        if is_target && !self.targets.take(Moment::default().after(event.at)) {
            self.dropped += 1;
            return;
        }
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.output.text(format!("{}  {dropped} target changes are not listed\n", seconds(event.at)));
        }
        self.output.text(printable(&format!("{}  {}", seconds(event.at), event.what)) + "\n");
    }

    fn on_poll(&mut self, _: &FleetStatus) {}
}

#[cfg(test)]
mod tests {
    use super::{EventLog, TARGETS};
    use crate::display::Screen;
    use crate::scheduler::{Inputs, PoolState, Reason, StateCause};
    use crate::supervisor::{Event, EventKind, Observer};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    #[test]
    fn a_guest_that_requests_without_end_does_not_fill_the_disk() {
        let mut list = Vec::new();
        let mut log = EventLog::new(Screen::new(&mut list));
        let target = EventKind::Target {
            guest: "alpha".into(),
            from: FrameCount(512),
            to: FrameCount(1024),
            reason: Reason::Demand,
            inputs: Inputs {
                firm: FrameCount(900),
                returning: FrameCount::ZERO,
                demand: FrameCount(1024),
                idle_percent: 0,
                entitlement: FrameCount(1024),
                free: FrameCount(4096),
                pool: PoolState::High,
                pool_cause: StateCause::Pool,
                in_need: None,
            },
            in_need: None,
        };
        let (at, allowed) = (Duration::from_secs(1), TARGETS.burst as usize);
        (0..1_000_000).for_each(|_| log.on_event(&Event { at, what: target.clone() }));
        log.on_event(&Event { at, what: EventKind::Started { guest: "beta".into(), target: FrameCount(512) } });
        drop(log);
        let list = String::from_utf8(list).unwrap();
        let tail: Vec<_> = list.lines().skip(allowed).collect();
        let missing = format!("   1.00 s  {} target changes are not listed", 1_000_000 - allowed);
        assert_eq!(tail, [&missing, "   1.00 s  beta started with a target of 2.0 MiB"]);
    }
}
