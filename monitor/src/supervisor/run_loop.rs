//! The loop around the fleet: waits for what happens, has guests started, and ends what it started.
//!
//! It waits for the guests' events, results of starts, commands of clients, signals and the next
//! poll at once, by descriptors that are registered once. So guests that run are served while
//! others start, and a signal or a command is obeyed at any time. It never waits for a client, a
//! disk, a terminal or a guest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aerostat_abi::units::{FrameCount, to_usize};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::engine::{Admission, Attention, Found, Supervisor};
use super::host_meter::HostMeter;
use super::loop_time::LoopMeter;
use super::mailbox::{Inbox, Request};
use super::manager::{FleetManager, RunEnd};
use super::outcome::Outcome;
use super::physical::PhysicalMeter;
use super::poll_schedule::{Demand, PollSchedule};
use super::run::{Observer, RunError, RunOptions, RunUntil};
use super::saved_fleet::SavedFleet;
use super::signals::StopSignals;
use super::starters::{Start, Starters};
use crate::clock::Moment;
use crate::fleet::{Fleet, GuestSpec};
use crate::host::GuestHandle;
use crate::host::disk::swap_directory;
use crate::host::memory_sampler::MemorySampler;
use crate::scheduler::GuestId;

/// How long the end of a run waits for starts that are under way.
const START_PATIENCE: Duration = Duration::from_secs(1);
/// How often all guests' events are read, also of those whose descriptors say nothing: a process
/// that has closed its link is given a while to end.
const READ_ALL_INTERVAL: Duration = Duration::from_secs(1);
/// Descriptors that are reported ready at a time.
const READY_AT_A_TIME: usize = 256;
/// Descriptors that do not belong to a guest are registered with numbers above any guest's.
const SIGNALS: u64 = u64::MAX;
const STARTS: u64 = u64::MAX - 1;
const INBOX: u64 = u64::MAX - 2;

/// A run and all that it waits for.
pub(super) struct RunLoop<'a, G> {
    manager: FleetManager<G>,
    starters: Starters<G>,
    inbox: Option<Inbox>,
    signals: StopSignals,
    meter: PhysicalMeter,
    loop_meter: LoopMeter,
    sampler: MemorySampler,
    host_meter: HostMeter,
    schedule: PollSchedule,
    /// An epoll descriptor with all that is waited for.
    sources: OwnedFd,
    /// Guests whose descriptors are ready.
    ready: Vec<GuestId>,
    /// When the events of all guests are to be read.
    read_all: Moment,
    until: RunUntil,
    /// When the time of the run is over.
    end: Option<Moment>,
    stop_patience: Duration,
    observer: &'a mut dyn Observer,
}

/// What guests are served until.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The first start of each guest has a result. One that fails ends the run.
    AllStarted,
    /// The run is over.
    RunIsOver,
}

/// Whether a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    GoesOn,
    /// A signal or a command came, or the time is over.
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
        let RunOptions { until, inbox, limit, policy, stop_patience, keeps_samples, physical } = options;
        let now = Moment::now();
        let mut supervisor = Supervisor::new(fleet.pool, policy, now);
        if keeps_samples {
            supervisor.keep_samples();
        }
        let signals = StopSignals::catch()?;
        let starters = Starters::new(start)?;
        let sources = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&sources, signals.fd(), EventData::new_u64(SIGNALS), EventFlags::IN)?;
        epoll::add(&sources, starters.fd(), EventData::new_u64(STARTS), EventFlags::IN)?;
        if let Some(inbox) = &inbox {
            epoll::add(&sources, inbox.fd(), EventData::new_u64(INBOX), EventFlags::IN)?;
        }
        Ok(Self {
            manager: FleetManager::new(fleet, supervisor, stop_patience, now),
            starters,
            inbox,
            signals,
            meter: PhysicalMeter::new(physical),
            loop_meter: LoopMeter::new(),
            sampler: MemorySampler::default(),
            host_meter: HostMeter::new(&swap_directory()),
            schedule: PollSchedule::default(),
            sources,
            ready: Vec::new(),
            read_all: now,
            until,
            end: limit.map(|limit| now.after(limit)),
            stop_patience,
            observer,
        })
    }

    /// Starts all guests and serves them until the run is to end. All are admitted before the first
    /// one starts, so that none can grow into the minimum of another.
    pub(super) fn start_and_serve(&mut self) -> Result<(), RunError> {
        let admissions = self.manager.admit_all(Moment::now())?;
        self.start(admissions);
        if self.serve(Until::AllStarted)? == Progress::GoesOn {
            self.observer.on_ready();
            self.serve(Until::RunIsOver)?;
        }
        Ok(())
    }

    /// Sets what users had changed under an earlier supervisor; before its guests are taken in.
    pub(super) fn restore(&mut self, saved: &SavedFleet) {
        self.manager.restore(saved);
    }

    /// Takes in guests that an earlier supervisor has left, and serves the fleet until the run is
    /// to end. A guest that can't be started is no reason to end the others, which ran before.
    pub(super) fn resume_and_serve(&mut self, found: Vec<Found<G>>) -> Result<(), RunError> {
        for found in &found {
            if let Found::Running(adoption) = found {
                self.meter.add(adoption.group.as_ref());
            }
        }
        for id in self.manager.resume(found, Moment::now()) {
            self.register(id)?;
        }
        self.observer.on_ready();
        self.serve(Until::RunIsOver)?;
        Ok(())
    }

    /// Ends the run, which went as `ran` says: ends all guests, or leaves them to the next
    /// supervisor if a client wants that.
    pub(super) fn end(mut self, ran: Result<(), RunError>) -> Result<Outcome, RunError> {
        if ran.is_ok() && self.manager.run_end() == Some(RunEnd::HandOver) {
            self.manager.supervisor.leave(Moment::now());
            return Ok(self.finish());
        }
        let stopped = self.stop();
        let outcome = self.finish();
        ran?;
        stopped?;
        Ok(outcome)
    }

    /// Ends all guests: asks, waits, kills, waits. A signal meanwhile cuts the first wait short.
    fn stop(&mut self) -> io::Result<()> {
        let supervisor = &mut self.manager.supervisor;
        supervisor.request_stop();
        if !self.wait_for_end()? {
            self.manager.supervisor.kill();
            if !self.wait_for_end()? {
                self.manager.supervisor.abandon(Moment::now());
            }
        }
        Ok(())
    }

    /// Reports the last events and returns the outcome.
    fn finish(mut self) -> Outcome {
        self.report_events();
        self.manager.supervisor.record_loop(self.loop_meter.times());
        self.observer.on_poll(&self.manager.status(Moment::now()));
        self.starters.close(START_PATIENCE);
        self.manager.into_outcome(Moment::now())
    }

    /// Has admitted guests started.
    fn start(&mut self, admissions: Vec<Admission>) {
        admissions.into_iter().for_each(|admission| self.starters.start(admission));
    }

    /// Serves the guests until `until` holds or the run is to end.
    fn serve(&mut self, until: Until) -> Result<Progress, RunError> {
        loop {
            let now = Moment::now();
            if self.signals.take_inspection() {
                self.manager.supervisor.inspect();
            }
            self.take_over_started(until, now)?;
            self.execute_commands(now);
            self.attend(now);
            let is_reached = match until {
                Until::AllStarted => self.starters.are_done(),
                Until::RunIsOver => self.until == RunUntil::GuestsEnd && self.manager.is_over(),
            };
            let is_told = self.signals.take() || self.manager.run_end().is_some();
            if is_told || self.end.is_some_and(|end| now >= end) {
                return Ok(Progress::Stops);
            }
            if is_reached {
                return Ok(Progress::GoesOn);
            }
            let deadlines = [Some(self.schedule.next()), self.end, self.manager.next_change()];
            let deadline = deadlines.into_iter().flatten().min().unwrap_or(now);
            self.wait(deadline.since(Moment::now()))?;
        }
    }

    /// Takes over the guests whose starts have succeeded. One that has not ends the run where it is
    /// still about the first starts.
    fn take_over_started(&mut self, until: Until, now: Moment) -> Result<(), RunError> {
        while let Some(Start { admission, result }) = self.starters.take_result() {
            let id = admission.id();
            match result {
                Ok(launched) => {
                    self.manager.launched(admission, launched, now);
                    self.register(id)?;
                }
                Err(error) if until == Until::AllStarted => {
                    return Err(self.manager.withdraw(admission, error).into());
                }
                Err(error) => self.manager.not_launched(admission, error, now),
            }
        }
        Ok(())
    }

    /// Has the loop wait for a guest's events, too.
    fn register(&self, id: GuestId) -> io::Result<()> {
        if let Some(fd) = self.manager.supervisor.event_fd(id) {
            epoll::add(&self.sources, fd, EventData::new_u64(id.0 as u64), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Carries commands out. Clients are answered once what they have changed is safe.
    fn execute_commands(&mut self, now: Moment) {
        let mut answers = Vec::new();
        while let Some(Request { command, reply }) = self.inbox.as_mut().and_then(Inbox::take) {
            answers.push((reply, self.manager.execute(command, now)));
            self.schedule.hurry();
        }
        let admissions = self.manager.advance(now);
        self.start(admissions);
        let answer = move || answers.into_iter().for_each(|(reply, answer)| reply(answer));
        match self.manager.take_change() {
            Some(saved) => self.observer.on_change(saved, Box::new(answer)),
            None => answer(),
        }
    }

    /// Reads the guests' events, and polls the guests if it is time.
    fn attend(&mut self, now: Moment) {
        match self.read_events(now) {
            Attention::None => {}
            Attention::Usual => self.schedule.stir(),
            Attention::Needed => self.schedule.hurry(),
        }
        let is_due = self.schedule.is_due(now);
        if is_due {
            let supervisor = &mut self.manager.supervisor;
            supervisor.record_physical(self.meter.measure());
            supervisor.record_loop(self.loop_meter.times());
            if let Some(host) = self.sampler.sample(now) {
                supervisor.record_host(host);
            }
            if let Some(host) = self.host_meter.sample(now) {
                supervisor.record_resources(host);
            }
            supervisor.poll(now);
            let demand = match () {
                () if supervisor.is_memory_coming() => Demand::Waiting,
                () if supervisor.is_at_rest() => Demand::AtRest,
                () => Demand::Met,
            };
            self.schedule.polled(demand, now);
        }
        self.report_events();
        if is_due {
            self.observer.on_poll(&self.manager.status(now));
        }
    }

    /// Reads the events of guests whose descriptors are ready, and now and then those of all.
    fn read_events(&mut self, now: Moment) -> Attention {
        let ready = std::mem::take(&mut self.ready);
        if now >= self.read_all {
            self.read_all = now.after(READ_ALL_INTERVAL);
            return self.manager.read_events(now);
        }
        let attention = ready.into_iter().map(|id| self.manager.read_events_of(id, now));
        attention.fold(Attention::None, Attention::max)
    }

    fn report_events(&mut self) {
        self.manager.supervisor.take_events().iter().for_each(|event| self.observer.on_event(event));
    }

    /// Returns whether all guests ended in time.
    fn wait_for_end(&mut self) -> io::Result<bool> {
        let deadline = Moment::now().after(self.stop_patience);
        loop {
            let now = Moment::now();
            // A start may have succeeded just before it was abandoned.
            self.starters.abandon();
            self.manager.supervisor.read_events(now);
            if self.manager.supervisor.is_over() {
                return Ok(true);
            }
            if now >= deadline || self.signals.take() {
                return Ok(false);
            }
            self.wait(deadline.since(now))?;
        }
    }

    /// Waits for an event, a result of a start, a command, a signal, or until `timeout` has passed.
    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let mut events = Vec::with_capacity(READY_AT_A_TIME);
        let timeout = Timespec::try_from(timeout).expect("timeouts here are short");
        self.loop_meter.end();
        let waited = epoll::wait(self.sources.as_fd(), spare_capacity(&mut events), Some(&timeout));
        self.loop_meter.begin();
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_guest = |number: &u64| *number < INBOX;
        let numbers = events.iter().map(|event: &epoll::Event| event.data.u64()).filter(is_guest);
        self.ready = numbers.map(|number| GuestId(to_usize(number))).collect();
        Ok(())
    }
}
