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
    /// How long guests may take to end when asked, and again when killed: a busy host takes its
    /// time to tear machines down.
    pub stop_patience: Duration,
    /// Whether the outcome is to have samples of the guests' sizes. They take some memory: 40 bytes
    /// each, ten a second.
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

/// Starts the fleet by `start`, runs it until it is over, the limit is reached or a signal comes,
/// and ends it.
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
    let mut looks = Looks { meter: &meter, observer, last: Moment::default(), next: Moment::default() };
    let started = meter.around_starts(|| start_all(fleet, &mut supervisor, &mut signals, &mut start, &mut looks));
    let ran = match started {
        Ok(Started::All) => watch(&mut supervisor, &mut signals, options.limit, &mut looks).map_err(RunError::from),
        Ok(Started::Interrupted) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let wound_down = wind_down(&mut supervisor, &mut signals, options.stop_patience);
    supervisor.take_events().iter().for_each(|event| observer.happened(event));
    ran?;
    wound_down?;
    Ok(supervisor.into_outcome(Moment::now()))
}

/// Whether all guests were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    All,
    /// A signal came first.
    Interrupted,
}

/// Starts all guests, one after the other, and looks after those that run already. All are admitted
/// before the first one runs: what that one grows by is nobody's minimum.
fn start_all<G: GuestHandle>(
    fleet: &Fleet,
    supervisor: &mut Supervisor<G>,
    signals: &mut StopSignals,
    start: &mut impl FnMut(&GuestSpec, FrameCount) -> anyhow::Result<G>,
    looks: &mut Looks<'_>,
) -> Result<Started, StartError> {
    let admitted: Result<Vec<_>, _> = fleet.guests.iter().map(|spec| supervisor.admit(spec)).collect();
    for (spec, admission) in fleet.guests.iter().zip(admitted?) {
        supervisor.launch(spec, admission, Moment::now(), &mut *start)?;
        looks.attend(supervisor, Moment::now());
        if signals.take() {
            return Ok(Started::Interrupted);
        }
    }
    Ok(Started::All)
}

/// When to look at the guests, and who is told.
struct Looks<'a> {
    meter: &'a PhysicalMeter,
    observer: &'a mut dyn Observer,
    last: Moment,
    next: Moment,
}

impl Looks<'_> {
    /// Takes in what the guests say, and looks at them if it is time.
    fn attend<G: GuestHandle>(&mut self, supervisor: &mut Supervisor<G>, now: Moment) {
        if supervisor.hear(now) == Attention::Needed {
            self.next = self.next.min(self.last.after(PACE_LIMIT));
        }
        let is_time = now >= self.next;
        if is_time {
            supervisor.measured(self.meter.measure());
            supervisor.look(now);
            self.last = now;
            self.next = now.after(if supervisor.is_guest_waiting() { PACE_WHEN_SHORT } else { PACE });
        }
        supervisor.take_events().iter().for_each(|event| self.observer.happened(event));
        if is_time {
            self.observer.looked(&supervisor.status(now));
        }
    }
}

/// Looks after the guests until the run is to end.
fn watch<G: GuestHandle>(
    supervisor: &mut Supervisor<G>,
    signals: &mut StopSignals,
    limit: Option<Duration>,
    looks: &mut Looks<'_>,
) -> io::Result<()> {
    let end = limit.map(|limit| Moment::now().after(limit));
    loop {
        let now = Moment::now();
        if signals.take_inspection() {
            supervisor.inspect();
        }
        looks.attend(supervisor, now);
        if supervisor.is_over() || signals.take() || end.is_some_and(|end| now >= end) {
            return Ok(());
        }
        let deadline = end.map_or(looks.next, |end| end.min(looks.next));
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
