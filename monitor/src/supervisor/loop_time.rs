//! How long the rounds of the supervisor's loop take.
//!
//! A round is what lies between two waits for events. As long as it lasts, no guest is served, so a
//! round must be short whatever guests, VMM processes, clients and disks do. A round takes longer
//! by the clock where other threads have the processors. That is the host's load and no fault of
//! the loop, so the time in which the thread was ready and waited for a processor is told apart:
//! what remains is work, and waits for something that should not have been waited for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::clock::Moment;

/// The worst of the latest past is that of the present interval and the one before.
const INTERVAL: Duration = Duration::from_secs(10);
/// What the scheduler has counted of the thread that opens it: nanoseconds on a processor,
/// nanoseconds of waiting for one, and time slices (Linux,
/// Documentation/scheduler/sched-stats.rst).
const SCHEDULED: &str = "/proc/thread-self/schedstat";

/// The rounds of a run so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopTimes {
    /// Their number.
    pub rounds: u64,
    /// The longest one.
    pub longest: Duration,
    /// The longest one of the last 10 to 20 seconds.
    pub recent_longest: Duration,
    /// The longest one, less the time in which its thread was ready and waited for a processor;
    /// where the host does not count that, the longest one.
    pub longest_own: Duration,
}

/// One round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    took: Duration,
    /// The part in which the thread was ready and waited for a processor.
    waited_for_processor: Duration,
}

/// The worst of all rounds and of the latest ones.
#[derive(Debug, Default)]
struct LoopRecord {
    times: LoopTimes,
    /// When the present interval began, and the longest rounds of the one before and of this one.
    interval_began: Moment,
    former: Duration,
    present: Duration,
}

impl LoopRecord {
    /// Counts a round that ends `now`.
    fn count(&mut self, round: Round, now: Moment) {
        let passed = now.since(self.interval_began);
        if passed >= INTERVAL {
            self.former = if passed < 2 * INTERVAL { self.present } else { Duration::ZERO };
            (self.present, self.interval_began) = (Duration::ZERO, now);
        }
        self.present = self.present.max(round.took);
        let own = round.took.saturating_sub(round.waited_for_processor);
        let times = &mut self.times;
        times.rounds += 1;
        times.longest = times.longest.max(round.took);
        times.longest_own = times.longest_own.max(own);
        times.recent_longest = self.present.max(self.former);
    }
}

/// Measures the rounds of the loop of the thread that creates it.
#[derive(Debug)]
pub(super) struct LoopMeter {
    record: LoopRecord,
    scheduled: Option<File>,
    /// When the present round began, and how long the thread had waited for a processor by then.
    began: Moment,
    waited_before: Duration,
}

impl LoopMeter {
    /// Creates a meter, and begins the first round.
    pub(super) fn new() -> Self {
        let mut meter = Self {
            record: LoopRecord::default(),
            scheduled: File::open(SCHEDULED).ok(),
            began: Moment::default(),
            waited_before: Duration::ZERO,
        };
        meter.begin();
        meter
    }

    /// Begins a round: a wait is over.
    pub(super) fn begin(&mut self) {
        self.began = Moment::now();
        self.waited_before = self.waited_for_processor();
    }

    /// Ends the round: the thread is about to wait.
    pub(super) fn end(&mut self) {
        let waited_for_processor = self.waited_for_processor().saturating_sub(self.waited_before);
        let now = Moment::now();
        self.record.count(Round { took: now.since(self.began), waited_for_processor }, now);
    }

    /// Returns the rounds that have ended.
    pub(super) fn times(&self) -> LoopTimes {
        self.record.times
    }

    /// Returns how long the thread has waited for a processor so far; zero where that is unknown.
    fn waited_for_processor(&self) -> Duration {
        let mut text = [0; 64];
        let length = self.scheduled.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        parse_waited(&text[..length]).unwrap_or_default()
    }
}

/// Returns the second number of a `schedstat`.
fn parse_waited(text: &[u8]) -> Option<Duration> {
    let waited = str::from_utf8(text).ok()?.split_whitespace().nth(1)?;
    Some(Duration::from_nanos(waited.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{LoopMeter, LoopRecord, Round, parse_waited};
    use crate::clock::Moment;
    use std::thread;
    use std::time::Duration;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn count(record: &mut LoopRecord, took: u64, waited: u64, at_ms: u64) {
        let round = Round { took: ms(took), waited_for_processor: ms(waited) };
        record.count(round, Moment::from_ns(at_ms * 1_000_000));
    }

    #[test]
    fn the_longest_round_stays_and_the_recent_one_is_forgotten() {
        let mut record = LoopRecord::default();
        count(&mut record, 40, 0, 1_000);
        count(&mut record, 3, 0, 9_000);
        count(&mut record, 5, 0, 11_000);
        assert_eq!((record.times.rounds, record.times.recent_longest), (3, ms(40)), "the interval before counts");
        count(&mut record, 2, 0, 22_000);
        assert_eq!((record.times.longest, record.times.recent_longest), (ms(40), ms(5)));
        count(&mut record, 1, 0, 90_000);
        assert_eq!(record.times.recent_longest, ms(1), "nothing is recent after a long sleep");
    }

    #[test]
    fn waiting_for_a_processor_is_not_the_loops_own_time() {
        let mut record = LoopRecord::default();
        count(&mut record, 100, 97, 1);
        count(&mut record, 20, 0, 2);
        count(&mut record, 1, 2, 3);
        assert_eq!((record.times.longest, record.times.longest_own), (ms(100), ms(20)));
    }

    #[test]
    fn the_scheduler_counts_the_wait_for_a_processor() {
        assert_eq!(parse_waited(b"120 345000000 7\n"), Some(ms(345)));
        assert_eq!((parse_waited(b""), parse_waited(b"12 x 7"), parse_waited(b"\xff 1")), (None, None, None));
    }

    #[test]
    fn a_round_that_blocks_is_its_own_time() {
        let mut meter = LoopMeter::new();
        meter.end();
        thread::sleep(ms(80));
        meter.begin();
        thread::sleep(ms(20));
        meter.end();
        let times = meter.times();
        assert_eq!(times.rounds, 2);
        assert!(times.longest >= times.longest_own && times.longest_own >= ms(19), "{times:?}");
    }
}
