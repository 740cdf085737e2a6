//! Measures a fleet of many small guests that are started in one go and are idle then: the time
//! until the last one runs, and the load of the supervisor's thread afterwards. A run counts only
//! if every guest reached its `main`, the targets never exceeded the pool, and every guest ended
//! when it was asked to.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aerostat::fleet::GuestSpec;
use aerostat::host::EndReason;
use aerostat::host::vmm_guest::{GuestConfig, VmmGuest};
use aerostat::supervisor::{Command, Event, FleetStatus, GuestState, Mailbox, Observer, Outcome, mailbox};
use aerostat_abi::units::FrameCount;
use aerostat_tests::environment::{aerostat_vmm, guest_image};
use anyhow::{Context, Result, ensure};

use crate::row::Row;

const GUESTS: u16 = 200;
const POOL: &str = "4G";
const MIN: &str = "16M";
const MAX: &str = "64M";
/// From the moment when all guests run: the time in which they come to rest, and that for which the
/// load is measured.
const SETTLING: Duration = Duration::from_secs(5);
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
    let pool = super::pool()?;
    let start = {
        let pool = Some(Arc::clone(&pool));
        move |spec: &GuestSpec, target| {
            Ok(VmmGuest::spawn(&GuestConfig { pool: pool.clone(), ..spec.config(target, program.clone()) })?)
        }
    };
    let (client, inbox) = mailbox()?;
    let mut watch = Watch {
        began: Instant::now(),
        client,
        all_run: None,
        idle_from: None,
        idle_until: None,
        balanced: 0,
        most_granted: FrameCount::ZERO,
    };
    let outcome = super::run(&fleet, (inbox, pool), start, &mut watch)?;
    check(&outcome, &watch)?;
    let all_run = watch.all_run.context("not all guests ran at the same time")?;
    let idle_percent = watch.idle_percent().context("the run was too short to measure the load")?;
    Ok(vec![
        Row::rate("fleet_guests", f64::from(watch.balanced), "", f64::from(GUESTS)).goal_of_limit(1.0),
        Row::plain("fleet_start_s", all_run.as_secs_f64(), "s").goal(GOAL_OF_START_S),
        Row::plain("idle_supervisor_percent", idle_percent, "%").goal(GOAL_OF_IDLE_PERCENT),
    ])
}

fn check(outcome: &Outcome, watch: &Watch) -> Result<()> {
    ensure!(watch.most_granted <= outcome.pool, "targets of {} in a pool of {}", watch.most_granted, outcome.pool);
    for guest in &outcome.guests {
        ensure!(guest.spawn_to_main.is_some(), "{} did not reach its main", guest.name);
        ensure!(guest.ending.reason == EndReason::Stopped, "{} ended otherwise: {}", guest.name, guest.ending.reason);
        ensure!(guest.allocation_failures == 0, "{} was short of memory", guest.name);
    }
    Ok(())
}

/// A moment, and the processor time of this thread until then.
type Reading = (Instant, Duration);

/// Watches a run from the supervisor's thread.
struct Watch {
    began: Instant,
    client: Mailbox,
    /// How long it took until all guests ran.
    all_run: Option<Duration>,
    idle_from: Option<Reading>,
    idle_until: Option<Reading>,
    /// Guests that ran and waited for nothing at the last poll before the end.
    balanced: u16,
    most_granted: FrameCount,
}

impl Watch {
    fn idle_percent(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.idle_from?, self.idle_until?);
        Some(100.0 * (after - before).as_secs_f64() / to.duration_since(from).as_secs_f64())
    }

    /// Measures the load once all guests run, and ends the run after that.
    fn measure_load(&mut self, since_all_run: Duration) {
        if self.idle_until.is_some() || since_all_run < SETTLING {
            return;
        }
        let reading = processor_time().map(|time| (Instant::now(), time));
        if self.idle_from.is_none() {
            self.idle_from = reading;
        } else if since_all_run >= SETTLING + IDLE {
            self.idle_until = reading;
            // A run that is not told ends by its limit.
            let _ = self.client.send(Command::Shutdown, Box::new(|_| ()));
        }
    }
}

impl Observer for Watch {
    fn on_event(&mut self, _: &Event) {}

    fn on_poll(&mut self, status: &FleetStatus) {
        self.most_granted = self.most_granted.max(status.granted);
        if self.idle_until.is_some() {
            // The guests are being ended.
            return;
        }
        let is_balanced = |state: GuestState, wanted| state == GuestState::Running && wanted == FrameCount::ZERO;
        let balanced = status.guests.iter().filter(|guest| is_balanced(guest.state, guest.wanted)).count();
        self.balanced = u16::try_from(balanced).unwrap_or(u16::MAX);
        if self.balanced == GUESTS {
            self.all_run.get_or_insert(self.began.elapsed());
        }
        if let Some(all_run) = self.all_run {
            self.measure_load(self.began.elapsed().saturating_sub(all_run));
        }
    }
}

/// Returns the processor time that this thread has used (Linux, Documentation/scheduler/
/// sched-stats.rst).
fn processor_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}
