//! A tracker whose questions are answered at once, and a clock that the tests set.

use std::time::Duration;

use aerostat_abi::registers::Epoch;
use aerostat_abi::units::FrameCount;
use serde_json::{Value, json};

use super::{Owner, SPEECHLESS, Tracker};
use crate::clock::Moment;
use crate::host::qemu::qmp::{Command, QmpEvent};
use crate::host::{GuestEvent, Reports};

const fn mib(mib: u64) -> FrameCount {
    FrameCount::from_mib(mib)
}

/// A machine of 512 MiB.
struct Bench {
    tracker: Tracker,
    now: Moment,
    size: FrameCount,
    statistics: Value,
    sizes_set: Vec<u64>,
}

impl Bench {
    fn new(owner: Owner) -> Self {
        let unknown = json!({ "last-update": 0, "stats": {} });
        let now = Moment::from_ns(1_000_000_000);
        let mut bench =
            Self { tracker: Tracker::new(owner), now, size: mib(512), statistics: unknown, sizes_set: Vec::new() };
        bench.tracker.connected();
        bench.pass(Duration::ZERO);
        bench
    }

    /// Lets time pass, and answers what is asked then.
    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        while let Some(command) = self.tracker.next_command(self.now) {
            let answer = self.answer(&command);
            self.tracker.answered(&command, Ok(answer), self.now);
        }
    }

    fn answer(&mut self, command: &Command) -> Value {
        match command {
            Command::QueryStatus => json!({ "running": true }),
            Command::QueryMemorySize => json!({ "base-memory": 512_u64 << 20 }),
            Command::List { path } if path == "/machine/peripheral" => {
                json!([{ "name": "balloon0", "type": "child<virtio-balloon-device>" }])
            }
            Command::QueryBalloon => json!({ "actual": self.size.bytes() }),
            Command::Get { property: "guest-stats", .. } => self.statistics.clone(),
            Command::Get { .. } => json!(0),
            Command::Balloon(size) => {
                self.sizes_set.push(size.mib());
                json!({})
            }
            _ => json!([]),
        }
    }

    /// Has the guest report that so much of its memory is available.
    fn report(&mut self, second: u64, available_mib: u64) {
        let (total, available) = (self.size.bytes(), available_mib << 20);
        let stats = json!({ "stat-total-memory": total, "stat-available-memory": available });
        self.statistics = json!({ "last-update": second, "stats": stats });
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_machine_of_ours_starts_with_its_target_and_counts_when_its_driver_is_there() {
    let mut bench = Bench::new(Owner::Us { first: mib(64) });
    assert!(bench.tracker.is_known());
    assert_eq!(bench.sizes_set, [64], "its target comes first");
    let observation = bench.tracker.observation();
    assert_eq!((observation.size, observation.reports), (None, Reports::Awaited));
    bench.size = mib(64);
    bench.report(7, 20);
    bench.pass(SECOND);
    let observation = bench.tracker.observation();
    assert_eq!((observation.size, observation.balloon), (Some(mib(64)), Some(mib(448))));
    assert!(matches!(observation.reports, Reports::Derived(_)));
}

#[test]
fn a_machine_of_ours_without_a_driver_is_of_fixed_size_after_a_while() {
    let mut bench = Bench::new(Owner::Us { first: mib(64) });
    bench.pass(SPEECHLESS - SECOND);
    assert_eq!(bench.tracker.observation().size, None);
    bench.pass(SECOND);
    let observation = bench.tracker.observation();
    assert_eq!((observation.size, observation.reports), (Some(mib(512)), Reports::Never));
    let events = bench.tracker.take_events();
    assert!(matches!(&events[..], [GuestEvent::Problem(_)]), "{events:?}");
    bench.report(9, 100);
    bench.pass(2 * SECOND);
    assert!(matches!(bench.tracker.observation().reports, Reports::Derived(_)), "it has one after all");
}

#[test]
fn a_machine_that_stands_still_gives_no_sign_of_life() {
    let mut bench = Bench::new(Owner::Others);
    bench.pass(SECOND);
    let before = bench.tracker.observation().last_call;
    assert_eq!(before, Some(bench.now));
    bench.tracker.heard(QmpEvent::Stop, bench.now);
    bench.pass(SECOND);
    assert_eq!(bench.tracker.observation().last_call, before);
    bench.tracker.heard(QmpEvent::Resume, bench.now);
    assert_eq!(bench.tracker.observation().last_call, Some(bench.now));
}

#[test]
fn a_guest_is_asked_more_often_while_it_moves() {
    let mut bench = Bench::new(Owner::Others);
    bench.pass(SECOND);
    assert_eq!(bench.tracker.due(), Some(bench.now.after(SECOND)));
    bench.tracker.order(mib(256), Epoch(2));
    bench.pass(SECOND);
    assert!(bench.tracker.due() < Some(bench.now.after(SECOND)));
    bench.size = mib(256);
    bench.pass(SECOND);
    bench.pass(SECOND);
    assert_eq!(bench.tracker.due(), Some(bench.now.after(SECOND)));
}
