//! Measures a fleet of many small guests that are started in one go and are idle then: the time
//! until the last one runs, and the load of the supervisor's thread afterwards.

use std::fs;
use std::time::{Duration, Instant};

use aerostat::fleet::GuestSpec;
use aerostat::host::vmm_guest::VmmGuest;
use aerostat::supervisor::{self, Event, FleetStatus, GuestState, Observer, RunOptions};
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{aerostat_vmm, guest_image};
use anyhow::{Context, Result, ensure};

use crate::row::Row;

const GUESTS: u16 = 200;
const POOL: &str = "4G";
const MIN: &str = "16M";
const MAX: &str = "64M";
/// How long the run takes, and the last part of it, for which the load is measured.
const RUN: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(10);

const GOAL_OF_START_S: f64 = 10.0;
const GOAL_OF_IDLE_PERCENT: f64 = 1.0;

pub(super) fn measure() -> Result<Vec<Row>> {
    let image = guest_image("small_application");
    let guest = |number| {
        let image = image.display();
        format!("[[guest]]\nname = \"guest{number}\"\nimage = \"{image}\"\nmin = \"{MIN}\"\nmax = \"{MAX}\"\n")
    };
    let fleet =
        super::fleet(&(0..GUESTS).map(guest).fold(format!("pool = \"{POOL}\"\n"), |text, guest| text + &guest))?;
    let program = aerostat_vmm();
    let start = move |spec: &GuestSpec, target| Ok(VmmGuest::spawn(&spec.config(target, program.clone()))?);
    let mut watch = Watch { began: Instant::now(), all_run: None, idle_from: None, at_end: None, running: 0 };
    let options = RunOptions { limit: Some(RUN), ..RunOptions::default() };
    let outcome = supervisor::run(&fleet, options, start, &mut watch)?;
    ensure!(outcome.violations == 0, "the pool was overdrawn {} times", outcome.violations);
    ensure!(outcome.guests.iter().all(|guest| guest.spawn_to_main.is_some()), "a guest did not start");
    let all_run = watch.all_run.context("not all guests ran at the same time")?;
    let idle_percent = watch.idle_percent().context("the run was too short to measure the load")?;
    Ok(vec![
        Row::rate("fleet_guests", f64::from(watch.running), "", f64::from(GUESTS)).goal_of_limit(1.0),
        Row::plain("fleet_start_s", all_run.as_secs_f64(), "s").goal(GOAL_OF_START_S),
        Row::plain("idle_supervisor_percent", idle_percent, "%").goal(GOAL_OF_IDLE_PERCENT),
    ])
}

/// A moment, and the processor time of this thread until then.
type Reading = (Instant, Duration);

/// Watches a run from the supervisor's thread.
struct Watch {
    began: Instant,
    /// How long it took until all guests ran.
    all_run: Option<Duration>,
    idle_from: Option<Reading>,
    /// The latest reading.
    at_end: Option<Reading>,
    /// Guests that ran at the last poll.
    running: u16,
}

impl Watch {
    fn idle_percent(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.idle_from?, self.at_end?);
        let elapsed = to.duration_since(from);
        (elapsed >= IDLE / 2).then(|| 100.0 * (after - before).as_secs_f64() / elapsed.as_secs_f64())
    }
}

impl Observer for Watch {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, status: &FleetStatus) {
        let is_content = |state| matches!(state, GuestState::Running);
        let needs = |wanted| wanted > FrameCount::ZERO;
        let running = status.guests.iter().filter(|guest| is_content(guest.state) && !needs(guest.wanted)).count();
        let elapsed = self.began.elapsed();
        // At the end of the run guests are ended.
        if elapsed < RUN {
            self.running = u16::try_from(running).unwrap_or(u16::MAX);
        }
        if self.running == GUESTS {
            self.all_run.get_or_insert(elapsed);
        }
        if elapsed >= RUN - IDLE && elapsed < RUN {
            let reading = processor_time().map(|time| (Instant::now(), time));
            self.idle_from = self.idle_from.or(reading);
            self.at_end = reading;
        }
    }
}

/// Returns the processor time that this thread has used (Linux, Documentation/scheduler/
/// sched-stats.rst).
fn processor_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}
