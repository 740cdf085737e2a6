//! The loop around the supervisor: starts guests, waits for what happens, and ends what it started.
//!
//! It waits for the guests' events, results of starts, signals and the next poll at once. So guests
//! that run are served while others start, and a signal is obeyed at any time.

use std::io;
use std::time::Duration;

use aerostat_abi::units::FrameCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::engine::{Attention, Supervisor};
use super::outcome::Outcome;
use super::physical::PhysicalMeter;
use super::poll_schedule::{Demand, PollSchedule};
use super::run::{Observer, RunError, RunOptions};
use super::signals::StopSignals;
use super::starters::{Start, Starters};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec};
use crate::host::GuestHandle;

/// How long the end of a run waits for starts that are under way.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// A run and all that it waits for.
pub(super) struct RunLoop<'a, G> {
    supervisor: Supervisor<G>,
    starters: Starters<G>,
    signals: StopSignals,
    meter: PhysicalMeter,
    schedule: PollSchedule,
    /// When the time of the run is over.
    end: Option<Moment>,
    observer: &'a mut dyn Observer,
}

/// What guests are served until.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    AllStarted,
    AllEnded,
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    GoesOn,
    /// A signal came, or the time is over.
    Stops,
}

impl<'a, G: GuestHandle + Send + 'static> RunLoop<'a, G> {
    /// Begins a run without guests.
    pub(super) fn new<S>(
        fleet: &Fleet,
        options: RunOptions,
        start: S,
        observer: &'a mut dyn Observer,
    ) -> io::Result<Self>
    where
        S: Fn(&GuestSpec, FrameCount) -> anyhow::Result<G> + Send + Sync + 'static,
    {
        let now = Moment::now();
        let mut supervisor = Supervisor::new(fleet.pool, options.policy, now);
        if options.keeps_samples {
            supervisor.keep_samples();
        }
        Ok(Self {
            supervisor,
            signals: StopSignals::catch()?,
            starters: Starters::new(fleet.guests.len(), start)?,
            meter: PhysicalMeter::new(options.physical),
            schedule: PollSchedule::default(),
            end: options.limit.map(|limit| now.after(limit)),
            observer,
        })
    }

    /// Starts all guests and serves them until the run is to end. All are admitted before the first
    /// one starts, so that none can grow into the minimum of another.
    pub(super) fn start_and_serve(&mut self, fleet: &Fleet) -> Result<(), RunError> {
        let admissions: Result<Vec<_>, _> = fleet.guests.iter().map(|spec| self.supervisor.admit(spec)).collect();
        self.meter.enter();
        admissions?.into_iter().for_each(|admission| self.starters.start(admission));
        let started = self.serve(Until::AllStarted);
        self.meter.leave();
        if started? == Progress::GoesOn {
            self.serve(Until::AllEnded)?;
        }
        Ok(())
    }

    /// Ends all guests: asks, waits, kills, waits. A signal meanwhile cuts the first wait short.
    pub(super) fn stop(&mut self, patience: Duration) -> io::Result<()> {
        self.supervisor.request_stop();
        if !self.wait_for_end(patience)? {
            self.supervisor.kill();
            if !self.wait_for_end(patience)? {
                self.supervisor.abandon(Moment::now());
            }
        }
        Ok(())
    }

    /// Reports the last events and returns the outcome.
    pub(super) fn finish(mut self) -> Outcome {
        self.report_events();
        self.starters.close(START_PATIENCE);
        self.supervisor.into_outcome(Moment::now())
    }

    /// Serves the guests until `until` holds or the run is to end.
    fn serve(&mut self, until: Until) -> Result<Progress, RunError> {
        loop {
            let now = Moment::now();
            if self.signals.take_inspection() {
                self.supervisor.inspect();
            }
            self.take_over_started(now)?;
            self.attend(now);
            let is_reached = match until {
                Until::AllStarted => self.starters.are_done(),
                Until::AllEnded => self.supervisor.is_over(),
            };
            if self.signals.take() || self.end.is_some_and(|end| now >= end) {
                return Ok(Progress::Stops);
            }
            if is_reached {
                return Ok(Progress::GoesOn);
            }
            let next = self.schedule.next();
            let deadline = self.end.map_or(next, |end| end.min(next));
            self.wait(deadline.since(Moment::now()))?;
        }
    }

    /// Takes over the guests whose starts have succeeded; fails with the first that has not.
    fn take_over_started(&mut self, now: Moment) -> Result<(), RunError> {
        while let Some(Start { admission, result }) = self.starters.take_result() {
            match result {
                Ok(launched) => self.supervisor.launched(admission, launched, now),
                Err(error) => return Err(self.supervisor.withdraw(admission, error).into()),
            }
        }
        Ok(())
    }

    /// Reads the guests' events, and polls the guests if it is time.
    fn attend(&mut self, now: Moment) {
        if self.supervisor.read_events(now) == Attention::Needed {
            self.schedule.hurry();
        }
        let is_due = self.schedule.is_due(now);
        if is_due {
            self.supervisor.record_physical(self.meter.measure());
            self.supervisor.poll(now);
            let demand = if self.supervisor.is_memory_coming() { Demand::Waiting } else { Demand::Met };
            self.schedule.polled(demand, now);
        }
        self.report_events();
        if is_due {
            self.observer.on_poll(&self.supervisor.status(now));
        }
    }

    fn report_events(&mut self) {
        self.supervisor.take_events().iter().for_each(|event| self.observer.on_event(event));
    }

    /// Returns whether all guests ended in time.
    fn wait_for_end(&mut self, patience: Duration) -> io::Result<bool> {
        let deadline = Moment::now().after(patience);
        loop {
            let now = Moment::now();
            // A start may have succeeded just before it was abandoned.
            self.starters.abandon();
            self.supervisor.read_events(now);
            if self.supervisor.is_over() {
                return Ok(true);
            }
            if now >= deadline || self.signals.take() {
                return Ok(false);
            }
            self.wait(deadline.since(now))?;
        }
    }

    /// Waits for an event, a result of a start, a signal, or until `timeout` has passed.
    fn wait(&self, timeout: Duration) -> io::Result<()> {
        let fds = self.supervisor.event_fds().chain([self.signals.fd(), self.starters.fd()]);
        let mut poll_fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).expect("timeouts here are short");
        match poll(&mut poll_fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
