//! The loop around the supervisor: waits, looks, shows, and ends what it started.

use std::io;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::physical::{PhysicalMemory, PhysicalMeter};
use super::signals::StopSignals;
use super::status::{Event, FleetStatus};
use super::{Attention, Outcome, StartError, Supervisor};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec};
use crate::host::GuestHandle;
use crate::scheduler::Policy;

/// Time between looks.
const PACE: Duration = Duration::from_millis(20);
/// The same while a guest waits for memory that others are letting go of.
const PACE_WHEN_SHORT: Duration = Duration::from_millis(4);
/// The least time between looks, however many events come.
const PACE_LIMIT: Duration = Duration::from_millis(1);

/// What a run is told besides its fleet.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// When to stop the guests that still run; without it they run until they end.
    pub limit: Option<Duration>,
    /// How memory follows demand.
    pub policy: Policy,
    /// How long guests may take to end when asked, and again when killed: a busy host takes its time to tear machines down.
    pub stop_patience: Duration,
    /// Whether the outcome is to have samples of the guests' sizes. They take some memory: 40 bytes each, ten a second.
    pub keeps_samples: bool,
    /// How the physical memory of all guests together is found out.
    pub physical: PhysicalMemory,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            limit: None,
            policy: Policy::default(),
            stop_patience: Duration::from_secs(10),
            keeps_samples: false,
            physical: PhysicalMemory::AsReported,
        }
    }
}

/// Somebody who watches a run.
pub trait Observer {
    /// Something happened.
    fn happened(&mut self, event: &Event);

    /// A look is over; called at every look, so that the observer sets its own pace.
    fn looked(&mut self, status: &FleetStatus);
}

/// Why a run failed. Nothing runs any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A guest could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Waiting for events failed.
    #[error("can't wait for the guests: {0}")]
    Wait(#[from] io::Error),
}

/// Starts the fleet by `start`, runs it until it is over, the limit is reached or a signal comes, and ends it.
///
/// # Errors
///
/// [`RunError`]; every guest that was started has been ended.
pub fn run<G: GuestHandle>(
    fleet: &Fleet,
    options: RunOptions,
    mut start: impl FnMut(&GuestSpec, FrameCount) -> anyhow::Result<G>,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunError> {
    let mut signals = StopSignals::catch()?;
    let mut supervisor = Supervisor::new(fleet.pool, options.policy, Moment::now());
    if options.keeps_samples {
        supervisor.keep_samples();
    }
    let meter = PhysicalMeter::new(options.physical);
    let mut starts = fleet.guests.iter();
    let mut ran = meter.around_starts(|| {
        starts.try_for_each(|spec| supervisor.start(spec, Moment::now(), &mut start).map_err(RunError::from))
    });
    if ran.is_ok() {
        ran = watch(&mut supervisor, &mut signals, (&meter, options.limit), observer).map_err(RunError::from);
    }
    let wound_down = wind_down(&mut supervisor, &mut signals, options.stop_patience);
    supervisor.take_events().iter().for_each(|event| observer.happened(event));
    ran?;
    wound_down?;
    Ok(supervisor.into_outcome(Moment::now()))
}

/// Looks after the guests until the run is to end.
fn watch<G: GuestHandle>(
    supervisor: &mut Supervisor<G>,
    signals: &mut StopSignals,
    (meter, limit): (&PhysicalMeter, Option<Duration>),
    observer: &mut dyn Observer,
) -> io::Result<()> {
    let end = limit.map(|limit| Moment::now().after(limit));
    let mut last_look = Moment::default();
    let mut next_look = last_look;
    loop {
        let now = Moment::now();
        if supervisor.hear(now) == Attention::Needed {
            next_look = next_look.min(last_look.after(PACE_LIMIT));
        }
        if signals.take_inspection() {
            supervisor.inspect();
        }
        let is_time = now >= next_look;
        if is_time {
            supervisor.measured(meter.measure());
            supervisor.look(now);
            last_look = now;
            next_look = now.after(if supervisor.is_somebody_short() { PACE_WHEN_SHORT } else { PACE });
        }
        supervisor.take_events().iter().for_each(|event| observer.happened(event));
        if is_time {
            observer.looked(&supervisor.status(now));
        }
        if supervisor.is_over() || signals.take() || end.is_some_and(|end| now >= end) {
            return Ok(());
        }
        let deadline = end.map_or(next_look, |end| end.min(next_look));
        wait(supervisor, signals, deadline.since(Moment::now()))?;
    }
}

/// Ends all guests: asks, waits, kills, waits. A signal meanwhile cuts the first wait short.
fn wind_down<G: GuestHandle>(
    supervisor: &mut Supervisor<G>,
    signals: &mut StopSignals,
    patience: Duration,
) -> io::Result<()> {
    supervisor.request_stop();
    if !wait_for_end(supervisor, signals, patience)? {
        supervisor.kill();
        if !wait_for_end(supervisor, signals, patience)? {
            supervisor.abandon(Moment::now());
        }
    }
    Ok(())
}

/// Whether all guests ended in time.
fn wait_for_end<G: GuestHandle>(
    supervisor: &mut Supervisor<G>,
    signals: &mut StopSignals,
    patience: Duration,
) -> io::Result<bool> {
    let deadline = Moment::now().after(patience);
    loop {
        let now = Moment::now();
        supervisor.hear(now);
        if supervisor.is_over() {
            return Ok(true);
        }
        if now >= deadline || signals.take() {
            return Ok(false);
        }
        wait(supervisor, signals, deadline.since(now))?;
    }
}

/// Waits for an event, a signal, or until `timeout` has passed.
fn wait<G: GuestHandle>(supervisor: &Supervisor<G>, signals: &StopSignals, timeout: Duration) -> io::Result<()> {
    let fds = supervisor.event_fds().chain([signals.fd()]);
    let mut poll_fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(timeout).expect("timeouts here are short");
    match poll(&mut poll_fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
