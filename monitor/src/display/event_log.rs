//! The list of everything that happened, target changes and their reasons included.
//!
//! Guests bring target changes about by what they ask for, as fast as they like; so no more of
//! these are listed than [`TARGETS`] allows, and the list says how many are missing where.

use super::{Output, printable};
use crate::clock::Moment;
use crate::supervisor::{Event, EventKind, FleetStatus, Observer, seconds};
use crate::token_bucket::{Allowance, TokenBucket};

/// Target changes that are listed: a hundred bytes each.
const TARGETS: Allowance = Allowance { per_second: 100, burst: 20_000 };

/// Puts out one line per event.
#[derive(Debug)]
pub struct EventLog<O> {
    output: O,
    targets: TokenBucket,
    /// Target changes since the last line that are not listed.
    dropped: u64,
}

impl<O: Output> EventLog<O> {
    /// A list that goes to `output`.
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
    use crate::scheduler::Reason;
    use crate::supervisor::{Event, EventKind, Observer};
    use aerostat_abi::units::FrameCount;
    use std::time::Duration;

    #[test]
    fn a_guest_that_asks_without_end_does_not_fill_the_disk() {
        let mut list = Vec::new();
        let mut log = EventLog::new(Screen::new(&mut list));
        let target = EventKind::Target {
            guest: "alpha".into(),
            from: FrameCount(512),
            to: FrameCount(1024),
            reason: Reason::Demand,
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
